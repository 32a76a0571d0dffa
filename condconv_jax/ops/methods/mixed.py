"""Which method suits kernels of one group that are mixed already, without C++."""

from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import mapped, pointwise, spatial
from condconv_jax.ops.methods.method import Method


def suited(features: int, geometry: Geometry) -> Method:
    """Returns "pointwise", or for larger kernels "mapped" where it pays and "spatial"."""
    if geometry.is_pointwise():
        return pointwise.METHOD
    return mapped.METHOD if mapped.pays(features, geometry) else spatial.METHOD


def product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns each example convolved with its own kernel (b, kh, kw, c, f), as (b, h', w', f)."""
    return suited(kernels.shape[-1], geometry).product(x, kernels, geometry)
