"""What happens to a picture between its source and its batch.

A transform takes a sample and a np.random.Generator and returns a sample whose image is uint8
(image_size, image_size, 3), contiguous, and whose label is int32. Evaluation transforms ignore the
generator. They are made of steps, frozen callables (image, rng) -> image, all on uint8 (h, w, 3).
Normalising happens on the device (`normalize`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from condconv_jax.data.policies import AUGMENTATIONS, AutoAugment, RandAugment
from condconv_jax.data.resizing import check_interpolation, mirrored, resized
from condconv_jax.data.source import Sample
from condconv_jax.data.speech.augment import BackgroundNoise, TimeShift
from condconv_jax.names import unknown_name

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class TransformedSample(TypedDict):
    """A sample ready for its batch: image uint8 (s, s, 3), label int32 ()."""

    image: np.ndarray
    label: np.int32


Transform = Callable[[Sample, np.random.Generator], TransformedSample]

CROPS = ("pad", "resized", "none")


@dataclass(frozen=True)
class PadAndRandomCrop:
    """A random window of a picture with a black border, at its own scale.

    Attributes:
      size: height and width of the window, pixels.
      padding: border on each side, pixels.

    Raises:
      ValueError: on use, if the picture and its border are smaller than the window.

    Source: He et al. 2015, arXiv 1512.03385, section 4.2 (CIFAR-10, padding 4, size 32).
    """

    size: int
    padding: int = 4

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (size, size, c)."""
        height, width, _ = image.shape
        spare_rows = height + 2 * self.padding - self.size
        spare_columns = width + 2 * self.padding - self.size
        if min(spare_rows, spare_columns) < 0:
            raise ValueError(
                f"PadAndRandomCrop: a picture of {height}x{width} with {self.padding} pixels of "
                f"padding is smaller than {self.size}x{self.size}; raise padding, or use "
                f'crop="resized" or crop="none"'
            )
        row = int(rng.integers(spare_rows + 1)) - self.padding
        column = int(rng.integers(spare_columns + 1)) - self.padding
        return _window(image, row, column, self.size)


@dataclass(frozen=True)
class CentralWindow:
    """The central window of a picture at its own scale, with a black border where it is smaller.

    What `PadAndRandomCrop` trains on, without the randomness.

    Attributes:
      size: height and width of the window, pixels.
    """

    size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (size, size, c)."""
        height, width, _ = image.shape
        return _window(image, (height - self.size) // 2, (width - self.size) // 2, self.size)


@dataclass(frozen=True)
class RandomFlip:
    """The picture or, in half of the cases, its mirror image (left and right exchanged)."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (h, w, c); the very picture given if it is not mirrored."""
        return mirrored(image) if rng.integers(2) else image


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of a picture, its area and shape drawn at random, resized to a square.

    The area is uniform in `area`, the ratio of width to height log-uniform in `ratio`. Where ten
    draws do not fit into the picture, the largest central part whose ratio is in range is taken.

    Attributes:
      size: height and width of the result, pixels.
      area: lowest and highest share of the picture's area.
      ratio: lowest and highest width / height.
      interpolation: one of `INTERPOLATIONS`.

    Source: Szegedy et al. 2014, arXiv 1409.4842, section 6 (area 8% to 100%, ratio 3/4 to 4/3).
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    # tensorflow/tpu, models/official/efficientnet/preprocessing.py, _decode_and_random_crop.
    attempts: int = 10

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (size, size, 3)."""
        height, width, _ = image.shape
        log_ratio = (math.log(self.ratio[0]), math.log(self.ratio[1]))
        for _ in range(self.attempts):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(*log_ratio))
            crop_width = round(math.sqrt(area * ratio))
            crop_height = round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                row = int(rng.integers(height - crop_height + 1))
                column = int(rng.integers(width - crop_width + 1))
                break
        else:
            crop_width = min(width, max(1, round(height * self.ratio[1])))
            crop_height = min(height, max(1, round(width / self.ratio[0])))
            row, column = (height - crop_height) // 2, (width - crop_width) // 2
        part = image[row : row + crop_height, column : column + crop_width]
        return resized(part, self.size, self.interpolation)


@dataclass(frozen=True)
class ResizedCentralCrop:
    """The central square of a picture, resized.

    The same as resizing the shorter side to size / fraction and cutting out the middle.

    Attributes:
      size: height and width of the result, pixels.
      fraction: side of the square as a share of the picture's shorter side.
      interpolation: one of `INTERPOLATIONS`.

    Source: tensorflow/tpu, models/official/efficientnet/preprocessing.py,
      _decode_and_center_crop (CROP_FRACTION 0.875, which is 224 of 256).
    """

    size: int
    fraction: float = 0.875
    interpolation: str = "bicubic"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (size, size, 3)."""
        height, width, _ = image.shape
        side = max(1, int(self.fraction * min(height, width)))
        row, column = (height - side + 1) // 2, (width - side + 1) // 2
        part = image[row : row + side, column : column + side]
        return resized(part, self.size, self.interpolation)


@dataclass(frozen=True)
class Steps:
    """Steps applied to a sample's image one after another; the result is made contiguous."""

    steps: tuple[Step, ...]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> TransformedSample:
        """Returns the transformed sample; what else the sample holds is left out."""
        image = sample["image"]
        for step in self.steps:
            image = step(image, rng)
        return {"image": np.ascontiguousarray(image), "label": np.int32(sample["label"])}


def make_transforms(
    image_size: int,
    *,
    train: bool,
    crop: str = "pad",
    padding: int = 4,
    flip: bool = True,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    central_fraction: float = 0.875,
    interpolation: str = "bicubic",
    augment: str = "none",
    randaugment_layers: int = 2,
    randaugment_magnitude: float = 10.0,
) -> Steps:
    """Returns the transform of a training or an evaluation pipeline.

    crop       training                              evaluation
    "pad"      random window of the padded picture   central window, same scale
    "resized"  random part, resized                  central square of `central_fraction`, resized
    "none"     whole central square, resized         whole central square, resized

    Args:
      image_size: height and width of the result, pixels.
      train: whether to augment.
      crop: one of `CROPS`; pass the same for training and evaluation.
      padding: border of crop="pad", pixels on each side.
      flip: whether training mirrors half of the pictures.
      area: share of the area that crop="resized" takes, lowest and highest.
      ratio: width / height that crop="resized" takes, lowest and highest.
      central_fraction: side that the evaluation of crop="resized" takes of the shorter side.
      interpolation: how to resize, one of `INTERPOLATIONS`.
      augment: what training does after cropping and flipping, one of `AUGMENTATIONS`.
      randaugment_layers: operations per picture, of augment="randaugment".
      randaugment_magnitude: their level, 10 being the most that AutoAugment's have.

    Raises:
      ValueError: if crop, interpolation or augment is unknown or a number is out of its range.
    """
    if crop not in CROPS:
        raise unknown_name("make_transforms", "crop", crop, CROPS)
    check_interpolation("make_transforms", interpolation)
    if augment not in AUGMENTATIONS:
        raise unknown_name("make_transforms", "augment", augment, AUGMENTATIONS)
    _check_range("area", area, len(area) == 2, "two numbers, lowest and highest")
    _check_range("ratio", ratio, len(ratio) == 2, "two numbers, lowest and highest")
    area, ratio = (float(area[0]), float(area[1])), (float(ratio[0]), float(ratio[1]))
    _check_range("image_size", image_size, image_size >= 1, "at least 1 pixel")
    _check_range("padding", padding, padding >= 0, "0 or more pixels")
    _check_range("area", area, 0 < area[0] <= area[1] <= 1, "0 < lowest <= highest <= 1")
    _check_range("ratio", ratio, 0 < ratio[0] <= ratio[1], "0 < lowest <= highest")
    _check_range("central_fraction", central_fraction, 0 < central_fraction <= 1, "0 < x <= 1")

    step: Step
    if crop == "pad":
        step = PadAndRandomCrop(image_size, padding) if train else CentralWindow(image_size)
    elif crop == "resized" and train:
        step = RandomResizedCrop(image_size, area, ratio, interpolation)
    else:
        fraction = central_fraction if crop == "resized" else 1.0
        step = ResizedCentralCrop(image_size, fraction, interpolation)
    steps: list[Step] = [step]
    if train and flip:
        steps.append(RandomFlip())
    # After the flip, as in tensorflow/tpu, models/official/efficientnet/preprocessing.py.
    if train and augment == "autoaugment":
        steps.append(AutoAugment())
    elif train and augment == "randaugment":
        steps.append(RandAugment(randaugment_layers, randaugment_magnitude))
    elif train and augment == "spectrogram":
        steps += [TimeShift(), BackgroundNoise()]
    return Steps(tuple(steps))


def _check_range(argument: str, got: Any, fits: bool, wants: str) -> None:
    if not fits:
        raise ValueError(f"make_transforms: got {argument} {got}; wants {wants}")


def _window(image: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """Returns size x size pixels from (row, column) on, black where there is no picture."""
    height, width, channels = image.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + size, height), min(column + size, width)
    inside = image[top:bottom, left:right]
    if inside.shape == (size, size, channels):
        return inside
    window = np.zeros((size, size, channels), np.uint8)
    window[top - row : bottom - row, left - column : right - column] = inside
    return window
