"""The rule that `method="auto"` follows.

Times are milliseconds of one layer of this package on two CPU cores in float32, forward / with
all gradients: medians of 7 in one run with jax 0.10.2, without huge pages, on a shared machine.
The reference's gradients were not timed; they are why it is never chosen (45 s for a depthwise
layer, in an earlier measurement of vmap). Nothing was measured on an accelerator.
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
        # 512 channels, 14x14, batch 32: 2.9 / 22, reference 96 forward.
        return "depthwise"
    if geometry.is_pointwise():
        # Classifier 256 -> 1000, 32 experts, mixture against pointwise: batch 32 2.8 / 29 against
        # 4.9 / 46, batch 8 1.4 / 19 against 1.9 / 24, batch 1 1.6 / 5.1 against 1.1 / 14: at batch
        # 1 the rule serves inference. 1024 -> 1024, 7x7, 8 experts, batch 32: mixture 86 / 320
        # against 59 / 139.
        one_position = geometry.out_size == (1, 1)
        if one_position and not (isinstance(batch, int) and batch < 8):
            return "mixture"
        # 512 -> 512, 14x14, 8 experts, batch 32: 17 / 59, mixture 126 / 405, reference 95 forward.
        return "pointwise"
    # 3x3, 256 channels, 14x14, 8 experts, batch 8: 40 / 63, mixture 100 / 238, reference 36
    # forward: chosen for its gradients.
    return "spatial"
