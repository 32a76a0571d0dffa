"""The rule that `method="auto"` follows.

Times are milliseconds of one layer on two CPU cores in float32, forward / with all gradients,
measured with jax 0.10.2.
"""

from collections.abc import Sequence
from typing import Any

from condconv_jax.ops.geometry import Geometry


def choose(x_shape: Sequence[Any], geometry: Geometry) -> str:
    """Returns the name of the method to run.

    Args:
      x_shape: (b, h, w, c); b may be symbolic, in a program that is being exported.
      geometry: of the convolution.
    """
    batch, _, _, channels = x_shape
    if geometry.is_depthwise(channels):
        # 512 channels, 14x14, batch 32: 2.1 / 8.2, reference 72 / 45,000.
        return "depthwise"
    if geometry.is_pointwise():
        # Classifier 256 -> 1000, 32 experts, batch 32: mixture 2.6 / 9.5, pointwise 39 / 100;
        # at batch 1 pointwise 0.6, mixture 0.8. At 7x7 the mixture already loses by 2-3.
        one_position = geometry.out_size == (1, 1)
        if one_position and not (isinstance(batch, int) and batch < 8):
            return "mixture"
        # 512 -> 512, 14x14, 8 experts, batch 32: 12 / 43, reference 56 / not measurable.
        return "pointwise"
    # 3x3, 256 channels, 14x14, batch 8: 7.6 / 26, reference 31 / not measurable.
    return "spatial"
