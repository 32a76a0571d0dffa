"""The op: a convolution whose kernel is computed for each example."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from condconv_jax.names import unknown_name
from condconv_jax.ops.experts import FEW_EXAMPLES, mix_experts
from condconv_jax.ops.geometry import Geometry, Padding, make_geometry
from condconv_jax.ops.methods import CHOOSING, METHODS, Method, choose
from condconv_jax.ops.partition import mix_partially, mixes_apart, over_batch
from condconv_jax.ops.precision import wide
from condconv_jax.ops.routing import keep_top_k
from condconv_jax.ops.sparse import mix_top_k, reads_fewer


def cond_conv(
    x: Float[Array, "b h w c"],
    experts: Shaped[Array, "e kh kw i f"],
    routing: Float[Array, "b e"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    top_k: int | None = None,
    scale: Float[Array, " e"] | None = None,
    method: str = "auto",
) -> Float[Array, "b h_out w_out f"]:
    """Returns x with each example convolved by its own mix of the experts.

    y[b] = (sum_e r[b, e] * W[e]) * x[b] = sum_e r[b, e] * (W[e] * x[b])   (Yang et al., eq. 1)

    Under `jax.set_mesh` with an Auto axis "data" that divides b, each device computes its own
    examples; the forward pass gathers nothing and the gradient of the experts is one all-reduce.

    Args:
      x: inputs, any float dtype; the computation is in it, accumulated in at least float32.
      experts: kernels with i = c/g input channels, of a float dtype or int8; mixed in the dtype of
        x, each value widened on the way.
      routing: weights, not normalised, kept in their own dtype until the experts are mixed.
      strides: one number or (rows, columns).
      padding: "SAME", "SAME_LOWER", "VALID", pixels on every side, or per spatial axis pixels or
        (low, high).
      kernel_dilation: one number or (rows, columns).
      feature_group_count: g; equal to c for a depthwise convolution.
      top_k: mix only the experts of each example's k largest weights, as `keep_top_k` on the
        routing does; where b*k < e the others are not even read. None mixes all.
      scale: of each expert, where they are quantised: a factor of its weights.
      method: how to run it: a name in `METHODS`, "auto" (`methods/choose.py`), or, of programs that
        are exported, "portable", as "auto" but without code compiled for this machine, or
        "translated", what other runtimes than XLA run well. All agree within rounding. Only
        "reference" has a forward mode, and "mixture" but for depthwise kernels on a CPU.

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
    return _run("cond_conv", x, experts, routing, geometry, top_k, scale, method)


def cond_dense(
    x: Float[Array, "b *n c"],
    experts: Shaped[Array, "e c f"],
    routing: Float[Array, "b e"],
    *,
    top_k: int | None = None,
    scale: Float[Array, " e"] | None = None,
    method: str = "auto",
) -> Float[Array, "b *n f"]:
    """Returns x with each example multiplied by its own mix of the experts.

    y[b] = x[b] @ sum_e r[b, e] * W[e]

    Args:
      x: inputs, any float dtype; the computation is in it, accumulated in at least float32.
      experts: one matrix per expert, of a dtype as in `cond_conv`.
      routing: weights, not normalised.
      top_k: as in `cond_conv`.
      scale: as in `cond_conv`.
      method: any but "depthwise", as in `cond_conv`.

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
    y = _run("cond_dense", pixels, experts[:, None, None], routing, geometry, top_k, scale, method)
    return y.reshape(*x.shape[:-1], f)


def _run(
    where: str,
    x: Array,
    experts: Array,
    routing: Array,
    geometry: Geometry,
    top_k: int | None,
    scale: Array | None,
    method: str,
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
    if scale is not None and scale.shape != (e,):
        raise ValueError(f"{where}: scale is {scale.shape}, experts are {e}; pass one per expert")
    if top_k is not None and not (isinstance(top_k, int) and 1 <= top_k <= e):
        raise ValueError(f"{where}: top_k is {top_k}; pass 1 to {e}, the number of experts")
    chosen = resolve_method(where, method, x, experts.shape[-1], geometry)
    factors = jnp.ones(e, routing.dtype) if scale is None else scale

    # LiteRT has no translation of it, and a mixture's experts each have a product of their own.
    picks = method not in ("translated", "mixture")

    def run(x: Array, routing: Array, factors: Array, experts: Array) -> Array:
        skips = chosen.skips_zeros and x.shape[0] <= FEW_EXAMPLES
        if top_k is not None and picks and not skips and reads_fewer(x.shape[0], e, top_k):
            kernels = mix_top_k(experts, routing, top_k, x.dtype, factors)
            return chosen.product(x, kernels, geometry)
        kept = routing if top_k is None else keep_top_k(routing, top_k)
        weights = kept if scale is None else kept * factors[None, :]
        return chosen.run(x, experts, weights, geometry)

    def run_apart(x: Array, routing: Array, factors: Array, experts: Array) -> Array:
        kept = routing if top_k is None else keep_top_k(routing, top_k)
        # The sum over devices is of float32 too.
        mix = functools.partial(mix_experts, dtype=wide(x.dtype))
        kernels = mix_partially(mix, experts, kept * factors[None, :])
        return chosen.product(x, kernels.astype(x.dtype), geometry)

    apart = mixes_apart(e, x, routing)
    with jax.named_scope(where):
        return over_batch(
            run_apart if apart else run, (x, routing), (factors,), (experts,), gather=not apart
        )


def resolve_method(where: str, method: str, x: Array, features: int, geometry: Geometry) -> Method:
    """Returns the method of this name, or the one that a way to choose, like "auto", leads to.

    Args:
      where: the public function that was called, for messages.
      method: a name in `METHODS`, or a way to choose one.
      x: inputs (b, h, w, c).
      features: f, output channels.
      geometry: of the convolution.

    Raises:
      ValueError: if the method is unknown, or cannot run this convolution.
    """
    name = method
    if method in CHOOSING:
        name = choose(
            x.shape,
            features,
            geometry,
            itemsize=x.dtype.itemsize,
            way=method,
        )
    if name not in METHODS:
        raise unknown_name(where, "method", method, [*CHOOSING, *METHODS])
    refusal = METHODS[name].refusal(x.shape[3], geometry)
    if refusal:
        raise ValueError(f"{where}: {refusal}")
    return METHODS[name]
