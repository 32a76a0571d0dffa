"""Depthwise kernels: sums of shifted products, with gradients to match.

XLA's own depthwise convolution takes 66 ms forward for 512 channels of 14x14 at batch 32 on two
CPU cores, where nine shifted products take 2.6. Kernels here are
(n, kh, kw, c) with n = b (one per example) or n = 1 (a static convolution): broadcasting serves
both.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.method import mix_then
from condconv_jax.ops.methods.spatial import tap
from condconv_jax.ops.partition import vary_alike
from condconv_jax.ops.precision import wide, widen


def shifted_products(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns the depthwise convolution of x with kernels (n, kh, kw, 1, f), n = b or 1.

    Output channel j reads input channel j // (f/c), as in XLA's grouped convolution.
    """
    multiplier = kernels.shape[-1] // x.shape[-1]
    if multiplier > 1:
        x = jnp.repeat(x, multiplier, axis=-1)
    x, kernels = vary_alike(x, kernels)
    return _depthwise(x, kernels.reshape(-1, *geometry.kernel_size, kernels.shape[-1]), geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernels: Array, geometry: Geometry) -> Array:
    kh, kw = geometry.kernel_size
    padded = _pad(x, geometry)
    y = sum(
        widen(tap(padded, i, j, geometry)) * widen(_weight(kernels, i, j))
        for i in range(kh)
        for j in range(kw)
    )
    return jnp.asarray(y, x.dtype)


def _weight(kernels: Array, i: int, j: int) -> Array:
    """What tap (i, j) multiplies by, (n, 1, 1, c).

    Not kernels[:, i, j], which with a symbolic batch is a gather that LiteRT does not have.
    """
    n, _, _, c = kernels.shape
    return lax.slice(kernels, (0, i, j, 0), (n, i + 1, j + 1, c))


def _forward(x: Array, kernels: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernels, geometry), (x, kernels)


def _backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernels = saved
    return _input_gradient(x, kernels, dy, geometry), _kernel_gradient(x, kernels, dy, geometry)


_depthwise.defvjp(_forward, _backward)


def _input_gradient(x: Array, kernels: Array, dy: Array, geometry: Geometry) -> Array:
    """The gradient by x, computed directly for each residue of the stride.

    Row t of the input is row q = t + top of the padded one, which tap i meets in output row
    (q - i*d) / s where that is whole. Rows of one residue t mod s meet the same taps, so each
    residue is a stride-1 sum over its own taps; dilating dy with zeros instead would multiply by
    s*s - 1 zeros out of s*s.
    """
    b, h, w, c = x.shape
    rows, row_taps, row_pads = _meetings(0, h, geometry)
    columns, column_taps, column_pads = _meetings(1, w, geometry)
    dy = jnp.pad(dy, ((0, 0), row_pads, column_pads, (0, 0)))
    residues = []
    for of_rows in row_taps:
        for of_columns in column_taps:
            terms = [
                widen(lax.slice(dy, (0, top, left, 0), (b, top + rows, left + columns, c)))
                * widen(_weight(kernels, i, j))
                for i, top in of_rows
                for j, left in of_columns
            ]
            total = sum(terms) if terms else jnp.zeros_like(dy, shape=(b, rows, columns, c))
            residues.append(jnp.asarray(total, x.dtype))
    sh, sw = geometry.strides
    dx = residues[0]
    if len(residues) > 1:
        dx = jnp.stack(residues).reshape(sh, sw, b, rows, columns, c)
        dx = dx.transpose(2, 3, 0, 4, 1, 5).reshape(b, rows * sh, columns * sw, c)
    return lax.slice(dx, (0, 0, 0, 0), (b, h, w, c))


def _meetings(
    axis: int, size: int, geometry: Geometry
) -> tuple[int, list[list[tuple[int, int]]], tuple[int, int]]:
    """Which taps the inputs of each residue meet, and where in the output, along one axis.

    Returns the number of inputs of a residue (of the longest); for each residue a list of (tap,
    first output in dy once it is padded); and how to pad dy so that there is always one.
    """
    stride, dilation = geometry.strides[axis], geometry.kernel_dilation[axis]
    count = -(-size // stride)
    met = [
        [
            (tap, offset // stride)
            for tap in range(geometry.kernel_size[axis])
            if (offset := residue + geometry.padding[axis][0] - tap * dilation) % stride == 0
        ]
        for residue in range(stride)
    ]
    starts = [start for taps in met for _, start in taps] or [0]
    low = max(0, -min(starts))
    high = max(0, max(starts) + count - geometry.out_size[axis])
    return count, [[(tap, start + low) for tap, start in taps] for taps in met], (low, high)


def _kernel_gradient(x: Array, kernels: Array, dy: Array, geometry: Geometry) -> Array:
    """The gradient by the kernels, (n, kh, kw, c): a loop over output positions.

    Each position adds what its window of x meets to one accumulator (b, kh, kw, c). As kh*kw
    reductions over the map XLA reads the activations kh*kw times, one value at a time; a loop over
    rows with an accumulator for each tap and column takes up to four times as long as this.
    """
    kh, kw = geometry.kernel_size
    (sh, sw), (dh, dw) = geometry.strides, geometry.kernel_dilation
    b, _, w_out, c = dy.shape
    padded = _pad(x, geometry)
    window = b, (kh - 1) * dh + 1, (kw - 1) * dw + 1, c

    def add(position: Array, total: Array) -> Array:
        i, j = position // w_out, position % w_out
        met = lax.dynamic_slice(padded, (0, i * sh, j * sw, 0), window)
        if (dh, dw) != (1, 1):
            met = lax.slice(met, (0, 0, 0, 0), window, (1, dh, dw, 1))
        slope = lax.dynamic_slice(dy, (0, i, j, 0), (b, 1, 1, c))
        return total + widen(met) * widen(slope)

    start = jnp.zeros_like(dy, shape=(b, kh, kw, c), dtype=wide(dy.dtype))
    gradient = lax.fori_loop(0, geometry.positions(), add, start)
    if kernels.shape[0] != b:
        gradient = gradient.sum(axis=0, keepdims=True)
    return gradient.astype(kernels.dtype)


def _pad(x: Array, geometry: Geometry) -> Array:
    # The barrier keeps XLA from fusing the padding into each of the kh*kw shifted reads.
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), *geometry.padding, (0, 0))))


def refusal(channels: int, geometry: Geometry) -> str | None:
    """Why this method cannot run the convolution, or None."""
    if geometry.groups == channels:
        return None
    can = "pointwise" if geometry.is_pointwise() else "spatial"
    return (
        f"method 'depthwise' runs one group per channel, not {geometry.groups} for {channels} "
        f"channels; use method={can!r}"
    )


METHOD = mix_then(shifted_products, refusal)
