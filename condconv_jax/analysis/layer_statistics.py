"""The numbers that describe one layer's routing."""

import dataclasses

import numpy as np

from condconv_jax.analysis.collapse import effective_experts, experts_per_image, idle_experts
from condconv_jax.analysis.routing import (
    Labels,
    Weights,
    chance_specificity,
    check_routing,
    class_specificity,
    class_spread,
    expert_use,
    share_near,
)


@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """One layer's routing over a set of images.

    Attributes:
      experts: e.
      mean: of all weights.
      near_zero: share of the weights within `routing.NEAR` of 0, 0 to 1.
      near_one: share of the weights within `routing.NEAR` of 1, 0 to 1.
      specificity: `class_specificity`.
      chance: `chance_specificity`, what labels drawn at random would give.
      spread: `class_spread`.
      use: mean weight of each expert.
      effective: `effective_experts`.
      per_image: `experts_per_image`.
      idle: `idle_experts`.
    """

    experts: int
    mean: float
    near_zero: float
    near_one: float
    specificity: float
    chance: float
    spread: float
    use: tuple[float, ...]
    effective: float
    per_image: float
    idle: tuple[int, ...]


def layer_statistics(routing: Weights, labels: Labels) -> LayerStatistics:
    """Returns the numbers that describe one layer's routing.

    Args:
      routing: weights (n, e).
      labels: class of each image (n,).

    Raises:
      ValueError: as `class_specificity`.
    """
    check_routing(routing, labels)
    return LayerStatistics(
        experts=routing.shape[1],
        mean=float(routing.mean(dtype=np.float64)),
        near_zero=share_near(routing, 0.0),
        near_one=share_near(routing, 1.0),
        specificity=class_specificity(routing, labels),
        chance=chance_specificity(labels),
        spread=class_spread(routing, labels),
        use=tuple(expert_use(routing).tolist()),
        effective=effective_experts(routing),
        per_image=experts_per_image(routing),
        idle=tuple(idle_experts(routing).tolist()),
    )
