"""The op: a convolution whose kernel is computed for each example."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from condconv_jax.names import unknown_name
from condconv_jax.ops.geometry import Geometry, Padding, make_geometry
from condconv_jax.ops.methods import METHODS, choose
from condconv_jax.ops.partition import over_batch


def cond_conv(
    x: Float[Array, "b h w c"],
    experts: Float[Array, "e kh kw i f"],
    routing: Float[Array, "b e"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    method: str = "auto",
) -> Float[Array, "b h_out w_out f"]:
    """Returns x with each example convolved by its own mix of the experts.

    y[b] = (sum_e r[b, e] * W[e]) * x[b] = sum_e r[b, e] * (W[e] * x[b])   (Yang et al., eq. 1)

    Under `jax.set_mesh` with an Auto axis "data" that divides b, each device computes its own
    examples; the forward pass gathers nothing and the gradient of the experts is one all-reduce.

    Args:
      x: inputs, any float dtype; the computation is in it, accumulated in at least float32.
      experts: kernels with i = c/g input channels, cast to the dtype of x.
      routing: weights, not normalised, kept in their own dtype until the experts are mixed.
      strides: one number or (rows, columns).
      padding: "SAME", "SAME_LOWER", "VALID", pixels on every side, or per spatial axis pixels or
        (low, high).
      kernel_dilation: one number or (rows, columns).
      feature_group_count: g; equal to c for a depthwise convolution.
      method: how to run it: a name in `METHODS`, or "auto" (`methods/choose.py`). All agree
        within rounding. Only "reference", "mixture", "pointwise" and "spatial" have a forward
        mode.

    Returns:
      (b, h', w', f), dtype of x.

    Raises:
      ValueError: if the shapes disagree, the method is unknown, or it cannot run this case.

    Examples:
      >>> y = cond_conv(x, experts, route(x.mean((1, 2)), weight))

    Cost: b*h'*w'*kh*kw*(c/g)*f MADDs + b*e*kh*kw*(c/g)*f for mixing, in every method but
      "mixture", which takes E convolutions.
    Source: arXiv 1904.04971, section 3.
    """
    if experts.ndim != 5:
        raise ValueError(
            f"cond_conv: experts are {experts.shape}; pass (e, kh, kw, c/g, f), experts leading"
        )
    geometry = make_geometry(
        "cond_conv",
        x.shape,
        experts.shape[1:],
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
    )
    return _run("cond_conv", x, experts, routing, geometry, method)


def cond_dense(
    x: Float[Array, "b *n c"],
    experts: Float[Array, "e c f"],
    routing: Float[Array, "b e"],
    *,
    method: str = "auto",
) -> Float[Array, "b *n f"]:
    """Returns x with each example multiplied by its own mix of the experts.

    y[b] = x[b] @ sum_e r[b, e] * W[e]

    Args:
      x: inputs, any float dtype; the computation is in it, accumulated in at least float32.
      experts: one matrix per expert, cast to the dtype of x.
      routing: weights, not normalised.
      method: "reference", "mixture", "pointwise", "spatial" or "auto", as in `cond_conv`.

    Returns:
      (b, ..., f), dtype of x.

    Raises:
      ValueError: if the shapes disagree, or the method is unknown or "depthwise".

    Cost: b*prod(n)*c*f MADDs + b*e*c*f for mixing.
    Source: arXiv 1904.04971, section 4.1 (the classifier as a 1x1 CondConv).
    """
    if experts.ndim != 3 or x.ndim < 2 or x.shape[-1] != experts.shape[1]:
        raise ValueError(
            f"cond_dense: x is {x.shape}, experts are {experts.shape}; pass (b, ..., c), (e, c, f)"
        )
    if method == "depthwise":
        raise ValueError("cond_dense: a matrix has no depthwise form; use method='pointwise'")
    b, c, f = x.shape[0], x.shape[-1], experts.shape[-1]
    positions = 1
    for n in x.shape[1:-1]:
        positions *= n
    pixels = x.reshape(b, positions, 1, c)
    geometry = Geometry((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, (positions, 1))
    y = _run("cond_dense", pixels, experts[:, None, None], routing, geometry, method)
    return y.reshape(*x.shape[:-1], f)


def _run(
    where: str, x: Array, experts: Array, routing: Array, geometry: Geometry, method: str
) -> Array:
    b, e = x.shape[0], experts.shape[0]
    if routing.ndim != 2 or routing.shape[0] != b:
        rows = routing.shape[0] if routing.ndim == 2 else routing.shape
        raise ValueError(f"{where}: routing has {rows} rows, x has {b}; pass one row per example")
    if routing.shape[1] != e:
        raise ValueError(
            f"{where}: routing has {routing.shape[1]} weights per example, experts are {e}; "
            "pass one weight per expert"
        )
    name = (
        choose(x.shape, experts.shape[-1], geometry, itemsize=x.dtype.itemsize)
        if method == "auto"
        else method
    )
    if name not in METHODS:
        raise unknown_name(where, "method", method, ["auto", *METHODS])
    refusal = METHODS[name].refusal(x.shape[3], geometry)
    if refusal:
        raise ValueError(f"{where}: {refusal}")

    def run(x: Array, routing: Array, experts: Array) -> Array:
        return METHODS[name].run(x, experts, routing, geometry)

    with jax.named_scope(where):
        return over_batch(run, (x, routing), (experts,))
