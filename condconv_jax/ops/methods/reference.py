"""The definition: each example convolved with its own kernel, by vmap of XLA's convolution.

XLA lowers it to one convolution with b*g feature groups, which no backend runs well; on a CPU
the gradient of a depthwise layer takes seconds. It is here to be right, and for counting.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods.method import Method
from condconv_jax.ops.precision import wide


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f)."""
    with jax.named_scope("mix_experts"):
        kernels = jnp.tensordot(
            routing.astype(x.dtype),
            experts.astype(x.dtype),
            1,
            preferred_element_type=wide(x.dtype),
        )
    return product(x, kernels.astype(x.dtype), geometry)


def product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns each example convolved with its own kernel (b, kh, kw, c/g, f)."""
    return jax.vmap(lambda image, kernel: convolve(image[None], kernel, geometry)[0])(x, kernels)


def convolve(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Returns XLA's convolution of x (b, h, w, c) with one kernel (kh, kw, c/g, f)."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.strides,
        padding=geometry.padding,
        rhs_dilation=geometry.kernel_dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


METHOD = Method(run, product)
