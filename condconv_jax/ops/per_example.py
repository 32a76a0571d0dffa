"""The op without experts: a convolution of each example with a kernel of its own, given outright.

For layers that compute kernels in other ways than by mixing experts; where they are mixed,
`cond_conv` is the faster, since it need not hold a kernel for each example.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from condconv_jax.ops.cond_conv import resolve_method
from condconv_jax.ops.geometry import Padding, make_geometry
from condconv_jax.ops.partition import over_batch


def per_example_conv(
    x: Float[Array, "b h w c"],
    kernels: Float[Array, "b kh kw i f"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    method: str = "auto",
) -> Float[Array, "b h_out w_out f"]:
    """Returns x with each example convolved by its own kernel.

    y[b] = kernels[b] * x[b]

    Under `jax.set_mesh` each device computes its own examples, as in `cond_conv`; nothing is
    gathered, nor is any gradient summed.

    Args:
      x: inputs, any float dtype; the computation is in it, accumulated in at least float32.
      kernels: one per example, with i = c/g input channels; cast to the dtype of x.
      strides: as in `cond_conv`, like the arguments below.
      padding: see `cond_conv`.
      kernel_dilation: see `cond_conv`.
      feature_group_count: g; equal to c for a depthwise convolution.
      method: as in `cond_conv`. Methods that differ only in how they mix ("tiled", "fused",
        "native" but for depthwise kernels) are here "pointwise", "mapped" or "spatial".

    Returns:
      (b, h', w', f), dtype of x.

    Raises:
      ValueError: if the shapes disagree, the method is unknown, or it cannot run this case.

    Cost: b*h'*w'*kh*kw*(c/g)*f MADDs.
    Source: arXiv 1904.04971, eq. 1, after the sum over experts.
    """
    if kernels.ndim != 5:
        raise ValueError(
            f"per_example_conv: kernels are {kernels.shape}; pass (b, kh, kw, c/g, f), one kernel "
            "per example"
        )
    geometry = make_geometry(
        "per_example_conv",
        x.shape,
        kernels.shape[1:],
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
    )
    if kernels.shape[0] != x.shape[0]:
        raise ValueError(
            f"per_example_conv: kernels are {kernels.shape[0]}, x has {x.shape[0]} examples; pass "
            "one kernel per example, or use `conv` for one that all share"
        )
    chosen = resolve_method("per_example_conv", method, x, kernels.shape[-1], geometry)

    def run(x: Array, kernels: Array) -> Array:
        return chosen.product(x, kernels, geometry)

    with jax.named_scope("per_example_conv"):
        return over_batch(run, (x, kernels.astype(x.dtype)), ())
