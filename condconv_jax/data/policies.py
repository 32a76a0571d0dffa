"""AutoAugment and RandAugment: which operations a training picture goes through, drawn at random.

Both are steps (image, rng) -> image on uint8 (h, w, 3) and draw from that generator alone, so a run
that goes on, or that runs on another number of processes, sees the same pictures.

The official code gives lengths in pixels whatever the size of the picture: of one of 224, the
policy's translate_y at level 9, by 225, leaves nothing but grey. So does this, by default; the
lengths are attributes, for small pictures above all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from condconv_jax.data.augment import Operation, make_operations
from condconv_jax.names import unknown_name

SubPolicy = tuple[tuple[str, float, float], ...]

AUGMENTATIONS = ("none", "autoaugment", "randaugment", "spectrogram")

# Operation, probability, level: each row is one sub-policy.
# Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py, policy_v0, which EfficientNet
# is trained with; table 9 of arXiv 1805.09501 prints another policy for ImageNet.
IMAGENET_POLICY: tuple[SubPolicy, ...] = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("autocontrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("autocontrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)


@dataclass(frozen=True)
class AutoAugment:
    """One sub-policy for each picture, each of its operations carried out with its probability.

    Attributes:
      policy: sub-policies, all equally likely.
      translate: how far level 10 moves a picture, pixels.
      cutout: half the side of the square that level 10 cuts out, pixels.

    Raises:
      ValueError: if the policy is empty, names an unknown operation or has a probability outside
        0 to 1.

    Source: Cubuk et al. 2018, arXiv 1805.09501; lengths from the file above,
      distort_image_with_autoaugment.
    """

    policy: tuple[SubPolicy, ...] = IMAGENET_POLICY
    translate: float = 250.0
    cutout: float = 100.0
    _operations: Mapping[str, Operation] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        operations = make_operations(translate=self.translate, cutout=self.cutout)
        if not self.policy:
            raise ValueError("AutoAugment: policy is empty; pass at least one sub-policy")
        for name, probability, _ in (part for parts in self.policy for part in parts):
            if name not in operations:
                raise unknown_name("AutoAugment", "operation", name, operations)
            if not 0 <= probability <= 1:
                raise ValueError(
                    f"AutoAugment: {name} has probability {probability}; pass one from 0 to 1"
                )
        object.__setattr__(self, "_operations", operations)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (h, w, 3)."""
        picture = Image.fromarray(np.ascontiguousarray(image))
        for name, probability, level in self.policy[rng.integers(len(self.policy))]:
            if rng.random() < probability:
                picture = self._operations[name](picture, level, rng)
        return np.asarray(picture)


@dataclass(frozen=True)
class RandAugment:
    """A few operations one after another, each any of the 16, all at one level.

    Attributes:
      layers: operations per picture, N in the paper.
      magnitude: level of all of them, M in the paper; 10 is the most that AutoAugment's have.
      translate: how far level 10 moves a picture, pixels.
      cutout: half the side of the square that level 10 cuts out, pixels.

    Raises:
      ValueError: if there are no layers or the magnitude is negative.

    Source: Cubuk et al. 2019, arXiv 1909.13719, with the operations and lengths of
      tensorflow/tpu, models/official/efficientnet/autoaugment.py, distort_image_with_randaugment,
      where each one drawn is carried out; layers and magnitude by default as in main.py beside it.
    """

    layers: int = 2
    magnitude: float = 10.0
    translate: float = 100.0
    cutout: float = 40.0
    _operations: tuple[Operation, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(
                f'RandAugment: got layers {self.layers}; pass at least 1, or augment="none"'
            )
        if not self.magnitude >= 0:
            raise ValueError(f"RandAugment: got magnitude {self.magnitude}; pass 0 or more")
        operations = make_operations(translate=self.translate, cutout=self.cutout)
        object.__setattr__(self, "_operations", tuple(operations.values()))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (h, w, 3)."""
        picture = Image.fromarray(np.ascontiguousarray(image))
        for _ in range(self.layers):
            operation = self._operations[rng.integers(len(self._operations))]
            picture = operation(picture, self.magnitude, rng)
        return np.asarray(picture)
