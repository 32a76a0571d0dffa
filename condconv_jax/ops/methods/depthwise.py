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

from condconv_jax.ops.experts import mix_experts
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.method import Method
from condconv_jax.ops.methods.spatial import tap


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f)."""
    return shifted_products(x, mix_experts(experts, routing), geometry)


def shifted_products(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns the depthwise convolution of x with kernels (n, kh, kw, 1, f), n = b or 1.

    Output channel j reads input channel j // (f/c), as in XLA's grouped convolution.
    """
    multiplier = kernels.shape[-1] // x.shape[-1]
    if multiplier > 1:
        x = jnp.repeat(x, multiplier, axis=-1)
    # A gradient written by hand has to have the type of its argument: inside a shard_map, where one
    # of the two varies over devices and the other does not, the product with the other's ones makes
    # both vary (and its transpose adds up the devices' gradients). XLA drops the product.
    x, kernels = (
        x * jnp.ones_like(kernels, shape=(1, 1, 1, 1)),
        kernels * jnp.ones_like(x, shape=(1, 1, 1, 1, 1)),
    )
    return _depthwise(x, kernels[:, :, :, 0, :], geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernels: Array, geometry: Geometry) -> Array:
    kh, kw = geometry.kernel_size
    padded = _pad(x, geometry)
    y = sum(
        _accumulable(tap(padded, i, j, geometry)) * _accumulable(kernels[:, i, j])[:, None, None]
        for i in range(kh)
        for j in range(kw)
    )
    return jnp.asarray(y, x.dtype)


def _forward(x: Array, kernels: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernels, geometry), (x, kernels)


def _backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernels = saved
    return _input_gradient(x, kernels, dy, geometry), _kernel_gradient(x, kernels, dy, geometry)


_depthwise.defvjp(_forward, _backward)


def _input_gradient(x: Array, kernels: Array, dy: Array, geometry: Geometry) -> Array:
    """The gradient by x, computed directly for each residue of the stride.

    Row q of the padded input meets tap i in output row (q - i*d) / s where that is whole. Rows of
    one residue q mod s meet the same taps, so each residue is a stride-1 sum over its own taps;
    dilating dy with zeros instead would multiply by s*s - 1 zeros out of s*s.
    """
    b, h, w, c = x.shape
    (top, bottom), (left, right) = geometry.padding
    (kh, kw), (sh, sw), (dh, dw) = (
        geometry.kernel_size,
        geometry.strides,
        geometry.kernel_dilation,
    )
    rows, columns = -(-(h + top + bottom) // sh), -(-(w + left + right) // sw)
    # Output row t + shift serves residue row t: pad dy until every such row exists.
    low_h, low_w = (kh - 1) * dh // sh + 1, (kw - 1) * dw // sw + 1
    dy = jnp.pad(
        dy,
        (
            (0, 0),
            (low_h, max(0, rows - dy.shape[1])),
            (low_w, max(0, columns - dy.shape[2])),
            (0, 0),
        ),
    )
    dy = lax.optimization_barrier(dy)
    residues = []
    for ph in range(sh):
        for pw in range(sw):
            terms = []
            for i in range(kh):
                for j in range(kw):
                    if (ph - i * dh) % sh or (pw - j * dw) % sw:
                        continue
                    start_h = low_h + (ph - i * dh) // sh
                    start_w = low_w + (pw - j * dw) // sw
                    window = lax.slice(
                        dy,
                        (0, start_h, start_w, 0),
                        (b, start_h + rows, start_w + columns, c),
                    )
                    kernel = _accumulable(kernels[:, i, j])[:, None, None]
                    terms.append(_accumulable(window) * kernel)
            total = sum(terms) if terms else jnp.zeros_like(dy, shape=(b, rows, columns, c))
            residues.append(jnp.asarray(total, x.dtype))
    if len(residues) == 1:
        dx = residues[0]
    else:
        dx = jnp.stack(residues).reshape(sh, sw, b, rows, columns, c)
        # In two steps: on an Explicit mesh one reshape may merge one pair of axes.
        dx = dx.transpose(2, 3, 0, 4, 1, 5).reshape(b, rows * sh, columns, sw, c)
        dx = dx.reshape(b, rows * sh, columns * sw, c)
    return lax.slice(dx, (0, top, left, 0), (b, top + h, left + w, c))


def _kernel_gradient(x: Array, kernels: Array, dy: Array, geometry: Geometry) -> Array:
    """The gradient by the kernels, (n, kh, kw, c): a loop over output rows.

    Each row adds to kh*kw accumulators (b, w', c), summed over w' at the end. As kh*kw separate
    reductions XLA reads the activations kh*kw times with poor vectorisation.
    """
    kh, kw = geometry.kernel_size
    (sh, sw), (dh, dw) = geometry.strides, geometry.kernel_dilation
    b, h_out, w_out, c = dy.shape
    padded = _pad(x, geometry)

    def add_row(row: int | Array, sums: tuple[Array, ...] | None) -> tuple[Array, ...]:
        slope = _accumulable(lax.dynamic_index_in_dim(dy, row, 1, keepdims=False))
        products = []
        for i in range(kh):
            line = lax.dynamic_index_in_dim(padded, row * sh + i * dh, 1, keepdims=False)
            for j in range(kw):
                stop = j * dw + (w_out - 1) * sw + 1
                met = lax.slice(line, (0, j * dw, 0), (b, stop, c), (1, sw, 1))
                products.append(_accumulable(met) * slope)
        if sums is None:
            return tuple(products)
        return tuple(s + p for s, p in zip(sums, products, strict=True))

    # Starting from row 0 rather than from zeros gives the loop's carry the right varying type
    # inside shard_map without naming its axes.
    sums = lax.fori_loop(1, h_out, add_row, add_row(0, None))
    over = (1,) if kernels.shape[0] == b else (0, 1)
    gradient = jnp.stack([s.sum(axis=over, keepdims=len(over) == 2) for s in sums], axis=1)
    return gradient.reshape(kernels.shape).astype(kernels.dtype)


def _pad(x: Array, geometry: Geometry) -> Array:
    # The barrier keeps XLA from fusing the padding into each of the kh*kw shifted reads.
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), *geometry.padding, (0, 0))))


def _accumulable(a: Array) -> Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def refusal(channels: int, geometry: Geometry) -> str | None:
    """Why this method cannot run the convolution, or None."""
    if geometry.groups == channels:
        return None
    can = "pointwise" if geometry.is_pointwise() else "spatial"
    return (
        f"method 'depthwise' runs one group per channel, not {geometry.groups} for {channels} "
        f"channels; use method={can!r}"
    )


METHOD = Method(run, refusal)
