"""The rule that `method="auto"` follows."""

from collections.abc import Sequence
from typing import Any

import jax

from condconv_jax.ops import native
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import mapped
from condconv_jax.ops.native.mix import FEW_EXAMPLES

# Kernels of a whole batch that are larger than this are mixed a tile at a time.
LARGE = 24 * 2**20


def choose(
    x_shape: Sequence[Any],
    features: int,
    geometry: Geometry,
    *,
    itemsize: int = 4,
    backend: str | None = None,
    portable: bool = False,
) -> str:
    """Returns the name of the method to run.

    Args:
      x_shape: (b, h, w, c); b may be symbolic, in a program that is being exported.
      features: f, output channels.
      geometry: of the convolution.
      itemsize: bytes of one value.
      backend: "cpu", "gpu" or "tpu"; None for JAX's default.
      portable: whether the program has to run elsewhere too: no code compiled for this machine.
    """
    batch, _, _, channels = x_shape
    kh, kw = geometry.kernel_size
    kernel_bytes = kh * kw * (channels // geometry.groups) * features * itemsize
    sized, cpu = isinstance(batch, int), (backend or jax.default_backend()) == "cpu"
    large = cpu and sized and geometry.groups == 1 and batch * kernel_bytes > LARGE
    in_cpp = cpu and sized and itemsize == 4 and not portable and native.available()
    if in_cpp and (geometry.is_depthwise(channels) or batch <= FEW_EXAMPLES):
        return "native"
    if geometry.is_depthwise(channels):
        return "depthwise"
    if geometry.is_pointwise():
        if geometry.positions() == 1 and not (sized and batch < 8):
            return "mixture"
        return "tiled" if large else "pointwise"
    if large and batch > 1:
        return "tiled"
    return (
        "mapped" if cpu and geometry.groups == 1 and mapped.pays(features, geometry) else "spatial"
    )
