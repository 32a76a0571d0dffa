"""The official TensorFlow code's networks that have checkpoints, and ours that are the same."""

import dataclasses
from pathlib import Path
from typing import Any

from condconv_jax import models
from condconv_jax.interop.tensor_bundle import list_tensors, read_tensors
from condconv_jax.interop.tensorflow import from_tensorflow, is_weight
from condconv_jax.models.network import Network
from condconv_jax.names import unknown_name
from condconv_jax.nn import variable_shapes


@dataclasses.dataclass(frozen=True)
class OfficialNetwork:
    """A network of the official code.

    Attributes:
      model: our name of it.
      num_experts: e; 0 for a static one.
      statistics: that its images are normalised by, a name in `data.STATISTICS`.
      image_size: that it was trained at, in pixels.
    """

    model: str
    num_experts: int = 0
    statistics: str = "efficientnet_condconv"
    image_size: int = 224


# tensorflow/tpu, models/official/efficientnet: efficientnet_builder.py (coefficients) and
# condconv/efficientnet_condconv_builder.py (normalisation).
OFFICIAL = {
    "efficientnet-b0": OfficialNetwork("efficientnet_b0", statistics="imagenet"),
    "efficientnet-b1": OfficialNetwork("efficientnet_b1", statistics="imagenet", image_size=240),
    "efficientnet-condconv-b0-4e": OfficialNetwork("efficientnet_b0", 4),
    "efficientnet-condconv-b0-8e": OfficialNetwork("efficientnet_b0", 8),
    "efficientnet-condconv-b0-8e-depth": OfficialNetwork("efficientnet_b0_depth", 8),
}


def read_official(
    prefix: str | Path, name: str, *, ema: bool = True
) -> tuple[Network, dict[str, Any]]:
    """Returns our network and its variables from a checkpoint of the official code.

    Args:
      prefix: of the checkpoint's files, or its folder; see `read_tensors`.
      name: of the network, in `OFFICIAL`.
      ema: take the moving averages of the weights; see `from_tensorflow`.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: for an unknown name, a damaged checkpoint or one of another network.
    """
    if name not in OFFICIAL:
        raise unknown_name("read_official", "network", name, OFFICIAL)
    official = OFFICIAL[name]
    found = {key: shape for key, (shape, _) in list_tensors(prefix).items() if is_weight(key)}
    classes = [shape for key, shape in found.items() if key.endswith("head/dense/bias")]
    if not classes or len(classes[0]) != 1:
        raise ValueError(
            f"read_official: {prefix} has no head/dense/bias, by which classes are counted; pass "
            "a checkpoint of a whole network"
        )
    model = models.create(official.model, classes[0][0], num_experts=official.num_experts)
    variables = variable_shapes(model, official.image_size)
    tensors = read_tensors(prefix, found)
    return model, from_tensorflow(tensors, variables, ema=ema)
