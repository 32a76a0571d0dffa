"""What happens to a picture with boxes between its source and its batch.

A transform takes a `DetectionSample` and a np.random.Generator and returns arrays of fixed shapes,
so that they can be stacked. Normalising happens on the device (`normalize`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from condconv_jax.data.detection.augment import Expand, RandomFlips, RandomOverlapCrop
from condconv_jax.data.detection.boxes import has_inside
from condconv_jax.data.detection.photometric import PhotometricDistortion
from condconv_jax.data.detection.sample import DetectionSample
from condconv_jax.data.detection.scene import ResizeFrame, SceneStep, paint, whole_scene
from condconv_jax.data.resizing import check_interpolation, resized
from condconv_jax.names import unknown_name

DetectionTransform = Callable[[DetectionSample, np.random.Generator], dict[str, np.ndarray]]

FLIPS = ("horizontal", "both", "none")

# The mean of ImageNet's pixels, as the networks of weiliu89/caffe subtract it (blue, green, red
# 104, 117, 123; examples/ssd/ssd_coco.py): after normalising, about 0.
MEAN_COLOUR = (123, 117, 104)


@dataclass(frozen=True)
class TrainDetectionTransform:
    """A sample augmented, its boxes filled up to a fixed number.

    Attributes:
      steps: applied one after another; the frame has the size of the result after them.
      max_boxes: rows of the result. Where more are left, crowds and a random choice of the others
        are taken.
      fill: red, green and blue of where there is no picture.
    """

    steps: tuple[SceneStep, ...]
    max_boxes: int
    fill: tuple[int, int, int] = MEAN_COLOUR

    def __call__(self, sample: DetectionSample, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns image, boxes, labels and crowd; see `make_detection_transforms`."""
        scene = whole_scene(sample)
        for step in self.steps:
            scene = step(scene, rng)
        boxes = scene.shares()
        # float32 may make a line of a box that was cropped to a sliver.
        rows = np.flatnonzero(has_inside(boxes))
        if len(rows) > self.max_boxes:
            # Crowds first: without them what they hold would be learned as background.
            crowd = rows[scene.crowd[rows]][: self.max_boxes]
            others = rows[~scene.crowd[rows]]
            chosen = rng.choice(others, self.max_boxes - len(crowd), replace=False)
            rows = np.sort(np.concatenate([crowd, chosen]))
        return {
            "image": paint(scene, self.fill),
            "boxes": _filled(boxes[rows], self.max_boxes, 0),
            "labels": _filled(scene.labels[rows], self.max_boxes, -1),
            "crowd": _filled(scene.crowd[rows], self.max_boxes, False),
        }


@dataclass(frozen=True)
class EvalDetectionTransform:
    """A sample as it is, its picture squashed to a square, its boxes filled up to a fixed number.

    Attributes:
      size: height and width of the result, pixels.
      max_boxes: rows of the result.
      interpolation: one of `INTERPOLATIONS`.

    Raises:
      ValueError: on use, if a picture has more boxes: leaving some out would change the score.
    """

    size: int
    max_boxes: int
    interpolation: str = "bilinear"

    def __call__(self, sample: DetectionSample, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns the arrays of a picture; see `make_detection_transforms`."""
        if (count := len(sample["boxes"])) > self.max_boxes:
            raise ValueError(
                f"EvalDetectionTransform: the picture with image_id {sample['image_id']} has "
                f"{count} boxes, max_boxes is {self.max_boxes}; raise max_boxes to {count} or "
                f"more, for evaluation needs all of them"
            )
        image = resized(sample["image"], self.size, self.interpolation)
        return {
            "image": np.ascontiguousarray(image),
            "boxes": _filled(sample["boxes"], self.max_boxes, 0),
            "labels": _filled(sample["labels"], self.max_boxes, -1),
            "crowd": _filled(sample["crowd"], self.max_boxes, False),
            "area": _filled(sample["area"], self.max_boxes, 0),
            "image_id": np.asarray(sample["image_id"], np.int32),
            "size": np.array(sample["image"].shape[:2], np.int32),
        }


def make_detection_transforms(
    image_size: int,
    *,
    train: bool,
    max_boxes: int,
    crop: bool = True,
    crop_scale: float = 0.3,
    expand: float = 4.0,
    flip: str = "horizontal",
    photometric: bool = True,
    interpolation: str = "bilinear",
    fill: tuple[int, int, int] = MEAN_COLOUR,
) -> DetectionTransform:
    """Returns the transform of a training or an evaluation pipeline of detection.

    Training zooms out (`Expand`), crops (`RandomOverlapCrop`), resizes what is in the frame to the
    square (`ResizeFrame`), changes colours (`PhotometricDistortion`) and flips (`RandomFlips`).
    Colours are changed after resizing, when there are fewer pixels, and not those of the filling.
    Evaluation resizes, which leaves boxes as they are: they are shares of height and width.

    {"image": uint8 (s, s, 3), "boxes": float32 (max_boxes, 4), "labels": int32 (max_boxes,),
    "crowd": bool (max_boxes,)}, and in evaluation {"area": float32 (max_boxes,), pixels^2 of the
    picture before, "image_id": int32 (), "size": int32 (2,), its height and width}. Rows beyond
    the boxes have label -1 and zeros for the rest.

    Args:
      image_size: height and width of the result, pixels.
      train: whether to augment.
      max_boxes: rows of boxes. Training takes a random choice of more; evaluation refuses more.
      crop: whether training crops.
      crop_scale: least square root of the share of the picture that is left, 0 to 1.
      expand: up to how many times height and width training zooms out, in half of the cases; 1
        does not.
      flip: one of `FLIPS`; "both" is for pictures without an up and down.
      photometric: whether training changes colours.
      interpolation: how to resize, one of `INTERPOLATIONS`.
      fill: red, green and blue of what is beyond the picture after zooming out.

    Raises:
      ValueError: if flip or interpolation is unknown or a number is out of its range.
    Cost: training, from 640x480 to 300x300, 3.2 ms with "bilinear" and 1.1 with "opencv_bilinear"
      (means over augmentations, one core of an Intel Xeon).
    """
    if flip not in FLIPS:
        raise unknown_name("make_detection_transforms", "flip", flip, FLIPS)
    check_interpolation("make_detection_transforms", interpolation)
    _check_range("image_size", image_size, image_size >= 1, "at least 1 pixel")
    _check_range("max_boxes", max_boxes, max_boxes >= 1, "at least 1 box")
    _check_range("expand", expand, 1 <= expand < float("inf"), "a factor of 1 or more")
    colour = len(fill) == 3 and all(0 <= level <= 255 for level in fill)
    _check_range("fill", fill, colour, "three levels of 0..255")
    _check_range("crop_scale", crop_scale, 0 < crop_scale <= 1, "more than 0, 1 at most")
    if not train:
        return EvalDetectionTransform(image_size, max_boxes, interpolation)
    steps: list[SceneStep] = []
    if expand > 1:
        steps.append(Expand(expand))
    if crop:
        steps.append(RandomOverlapCrop(scale=(crop_scale, 1.0)))
    steps.append(ResizeFrame(image_size, interpolation))
    if photometric:
        steps.append(PhotometricDistortion())
    if flip != "none":
        steps.append(RandomFlips(vertical=flip == "both"))
    return TrainDetectionTransform(tuple(steps), max_boxes, (fill[0], fill[1], fill[2]))


def _check_range(argument: str, got: object, fits: bool, wants: str) -> None:
    if not fits:
        raise ValueError(f"make_detection_transforms: got {argument} {got}; wants {wants}")


def _filled(rows: np.ndarray, count: int, filling: float) -> np.ndarray:
    """Returns `rows` (n, ...) with rows of the filling after them, (count, ...)."""
    result = np.full((count, *rows.shape[1:]), filling, rows.dtype)
    result[: len(rows)] = rows
    return result
