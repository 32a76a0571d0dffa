"""The static convolution, run the way its conditional twin is.

A comparison of the two is fair only if both are run well: XLA's depthwise convolution and its
1x1 gradients are slow on a CPU, and the methods of the per-example convolution serve here too.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from condconv_jax.names import unknown_name
from condconv_jax.ops.geometry import Geometry, Padding, make_geometry
from condconv_jax.ops.methods import CHOOSING, choose, native
from condconv_jax.ops.methods.depthwise import shifted_products
from condconv_jax.ops.methods.pointwise import multiply
from condconv_jax.ops.methods.reference import convolve
from condconv_jax.ops.partition import over_batch

CONV_METHODS = ("reference", "pointwise", "depthwise", "native")


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw i f"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    method: str = "auto",
) -> Float[Array, "b h_out w_out f"]:
    """Returns the convolution of every example with the same kernel.

    Args:
      x: inputs, any float dtype; the computation is in it.
      kernel: with i = c/g input channels, cast to the dtype of x.
      strides: as in `cond_conv`, like the arguments below.
      padding: see `cond_conv`.
      kernel_dilation: see `cond_conv`.
      feature_group_count: g; equal to c for a depthwise convolution.
      method: "reference" (XLA's convolution), "pointwise" (a matrix product), "depthwise"
        (shifted products), "native" (the same in C++), "auto": on a CPU whichever fits,
        elsewhere XLA's; "portable" or "translated", see `cond_conv`.

    Returns:
      (b, h', w', f), dtype of x.

    Raises:
      ValueError: if the shapes disagree, the method is unknown, or it cannot run this case.

    Cost: b*h'*w'*kh*kw*(c/g)*f MADDs.
    Source: the static twin of arXiv 1904.04971, eq. 1, with one expert of weight 1.
    """
    geometry = make_geometry(
        "conv",
        x.shape,
        kernel.shape,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
    )
    kernel = kernel.astype(x.dtype)
    name = method
    if method in CHOOSING:
        name = _choose(x, geometry, way=method)
    if name == "reference":
        return convolve(x, kernel, geometry)
    if name == "pointwise" and geometry.is_pointwise():
        return over_batch(lambda x, kernel: multiply(x, kernel, geometry), (x,), (kernel,))
    if name in ("depthwise", "native") and geometry.groups == x.shape[3]:
        product = shifted_products if name == "depthwise" else native.depthwise_product

        def run(x: Array, kernel: Array) -> Array:
            return product(x, kernel[None], geometry)

        return over_batch(run, (x,), (kernel,))
    if name not in CONV_METHODS:
        raise unknown_name("conv", "method", method, [*CHOOSING, *CONV_METHODS])
    raise ValueError(
        f"conv: method {name!r} cannot run a kernel {kernel.shape} in {geometry.groups} groups; "
        "use method='reference' or 'auto'"
    )


def _choose(x: Array, geometry: Geometry, *, way: str) -> str:
    if jax.default_backend() != "cpu" or way == "translated":
        return "reference"  # not measured elsewhere yet; the library's convolution is the default
    if geometry.is_depthwise(x.shape[3]):
        return choose(x.shape, x.shape[3], geometry, itemsize=x.dtype.itemsize, way=way)
    return "pointwise" if geometry.is_pointwise() else "reference"
