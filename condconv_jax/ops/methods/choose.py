"""The rule that `method="auto"` follows.

Times are milliseconds of one layer of this package with 8 experts on two CPU cores in float32,
forward / with all gradients: medians of 5 or 7 with jax 0.10.2, without huge pages, on a shared
machine; those that are compared were timed in turn in one process, most of them by
`condconv benchmark --tune`. Nothing was measured on an accelerator.
"""

from collections.abc import Sequence
from typing import Any

import jax

from condconv_jax.ops import native
from condconv_jax.ops.experts import FEW_EXAMPLES
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import mapped

# Ways to choose a method.
CHOOSING = ("auto", "portable", "translated")

# Kernels of a whole batch that are larger than this are mixed a tile at a time.
LARGE = 24 * 2**20

# Narrower layers leave most of the panels of "fused" empty, 1x1 kernels and larger ones. 24 -> 8
# channels of 28x28, batch 64: 0.44 / 1.4, "pointwise" 0.22 / 1.0; 32 -> 32: 0.65 / 4.3 against
# 0.59 / 5.9. 3x3, 8 -> 8 channels of 16x16, batch 64: 0.80 / 2.2, "mapped" 1.1 / 3.5.
WIDTH_OF_1X1, WIDTH_OF_LARGER = 32, 8


def choose(
    x_shape: Sequence[Any],
    features: int,
    geometry: Geometry,
    *,
    itemsize: int = 4,
    backend: str | None = None,
    way: str = "auto",
) -> str:
    """Returns the name of the method to run.

    Args:
      x_shape: (b, h, w, c); b may be symbolic, in a program that is being exported.
      features: f, output channels.
      geometry: of the convolution.
      itemsize: bytes of one value.
      backend: "cpu", "gpu" or "tpu"; None for JAX's default.
      way: one of `CHOOSING`: "auto"; "portable", as "auto" but without code compiled for this
        machine; "translated", for a program that is to become a graph of ONNX or LiteRT.
    """
    if way == "translated":
        return _choose_translated(x_shape[3], geometry)
    batch, _, _, channels = x_shape
    kh, kw = geometry.kernel_size
    kernel_bytes = kh * kw * (channels // geometry.groups) * features * itemsize
    sized, cpu = isinstance(batch, int), (backend or jax.default_backend()) == "cpu"
    large = cpu and sized and geometry.groups == 1 and batch * kernel_bytes > LARGE
    in_cpp = cpu and sized and itemsize == 4 and way == "auto" and native.available()
    # dw512 (14x14, 3x3), batch 32: 0.87 / 4.8, "depthwise" 2.0 / 14; dw480k5 (14x14, 5x5), batch 8:
    # 0.24 / 1.0 against 0.94 / 2.8. Batch 1, forward (its gradients are those of "fused"):
    # classifier 1024 -> 1000 1.07, "mixture" 1.06, "fused" 1.40; dense256 1.9, "spatial" 2.2,
    # "fused" 2.3.
    if in_cpp and (geometry.is_depthwise(channels) or batch <= FEW_EXAMPLES):
        return "native"
    # 512 -> 512 on 14x14, batch 32: 13 / 45, "tiled" 17 / 56, "pointwise" 21 / 64; dense256, batch
    # 32: 29 / 86, "tiled" 37 / 122. On a map of one position, classifier 1024 -> 1000, batch 8:
    # 2.5 / 12, "mixture" 2.3 / 19; but batch 32: 5.4 / 23 against 2.3 / 25, 128: 25 / 80, 8.6 / 52.
    wide = min(channels, features) >= (WIDTH_OF_1X1 if geometry.is_pointwise() else WIDTH_OF_LARGER)
    if in_cpp and geometry.groups == 1 and wide and (geometry.positions() > 1 or batch < 32):
        return "fused"
    if geometry.is_depthwise(channels):
        # dw512, batch 1: 0.12 / 0.31, "spatial" 0.66 / 4.6; batch 32: 2.0 / 14, one call of
        # "spatial" 73 / 151, of "mixture" 526 forward, of the reference 74 forward.
        return "depthwise"
    if geometry.is_pointwise():
        # Classifier 256 -> 1000, batch 8: 0.28 / 1.7, "pointwise" 0.56 / 3.7; batch 32: 0.71 / 3.8
        # against 2.8 / 27.
        if geometry.positions() == 1 and not (sized and batch < 8):
            return "mixture"
        # 1024 -> 1024 on 7x7, batch 32: "tiled" 28 / 87, "pointwise" 57 / 165, "mixture" 88 / 281;
        # batch 8 7.2 / 43 against 9.5 / 63. 512 -> 512 on 14x14, batch 32: 18 / 50 against 20 / 61;
        # batch 8, whose kernels are 8 MiB: 3.4 / 15 against 4.0 / 13.
        return "tiled" if large else "pointwise"
    # dense256 (3x3, 14x14), batch 32: "tiled" 33 / 102, "spatial" 57 / 133, "mapped" 42 / 134;
    # batch 8, whose kernels are 18 MiB: 9.7 / 30, 9.8 / 23, 8.8 / 30.
    if large and batch > 1:
        return "tiled"
    # dense128 (3x3, 28x28), batch 32: "mapped" 24 / 94, "tiled" 27 / 103, "spatial" 72 / 141.
    return (
        "mapped" if cpu and geometry.groups == 1 and mapped.pays(features, geometry) else "spatial"
    )


def _choose_translated(channels: int, geometry: Geometry) -> str:
    """The method whose graph other runtimes run fast, with a free batch and any number of experts.

    One example in ONNX Runtime 1.32 on two cores of an Intel Xeon, 8 experts, medians of 40, as
    shifted products, as a convolution in a loop over the batch, as E convolutions: 480 channels of
    14x14, 5x5: 1.8, 1.1, 1.9 ms; 1152 of 7x7: 1.4, 1.1, 1.7; 3x3 0.38, 0.42, 1.0. LiteRT has no
    loop over a batch without a size, and jax2onnx 0.17 gives the loop's output a wrong shape.
    """
    if geometry.is_pointwise():
        return "pointwise"
    return "depthwise" if geometry.groups == channels else "spatial"
