"""What the config of a detection names: its images, their transforms and the task."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from condconv_jax import data
from condconv_jax.data import detection
from condconv_jax.tasks import Detection
from condconv_jax.tasks.detection import require_coco

TASK = Detection

# Which keys of `config.data` each source takes, beside the path.
_SOURCE_KEYS = {"tfds": ("dataset", "image_key", "objects_key"), "coco": ("categories",)}
_TRANSFORM_KEYS = (
    "max_boxes",
    "crop",
    "crop_scale",
    "expand",
    "flip",
    "photometric",
    "interpolation",
)


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a value out of its range, ImportError without what evaluates."""
    require_coco()
    loss, found = config["loss"], config["detections"]
    for key in ("focal_gamma", "box_weight"):
        if loss[key] < 0:
            raise ValueError(f"config.loss.{key} is {loss[key]}; pass 0 or more")
    for key, value in (
        ("loss.focal_alpha", loss["focal_alpha"]),
        ("detections.iou_threshold", found["iou_threshold"]),
        ("detections.score_threshold", found["score_threshold"]),
    ):
        if not 0 <= value <= 1:
            raise ValueError(f"config.{key} is {value}; pass 0 to 1")
    if found["max_detections"] < 1:
        raise ValueError(
            f"config.detections.max_detections is {found['max_detections']}; pass at least 1"
        )


def check_evaluated(config: Mapping[str, Any], source: data.Source[data.DetectionSample]) -> None:
    """Raises ValueError for pictures that cannot be evaluated, which training would find out late.

    Sources that do not know their numbers of boxes are taken at their word.
    """
    counts = detection.object_counts(source)
    if counts is None:
        return
    most, limit = int(counts.boxes.max(initial=0)), config["data"]["max_boxes"]
    if most > limit:
        raise ValueError(
            f"config.data.max_boxes is {limit}, a picture of {source.name} has {most} boxes; "
            f"evaluation needs all of them: set config.data.max_boxes={most} or more"
        )
    if not counts.objects.any():
        raise ValueError(
            f"config.data.eval: {source.name} has no object (other than crowds), and so no "
            "precision; evaluate on pictures with boxes"
        )


def open_source(settings: Mapping[str, Any], split: str) -> data.Source[data.DetectionSample]:
    """Returns the images of a split of `config.data`."""
    own = {key: settings[key] for key in _SOURCE_KEYS.get(settings["name"], ())}
    return data.open_detection_source(settings["name"], split, path=settings["path"], **own)


def unlabelled(image: np.ndarray) -> data.DetectionSample:
    """Returns a picture as a sample without boxes."""
    return {
        "image": image,
        "boxes": np.zeros((0, 4), np.float32),
        "labels": np.zeros(0, np.int32),
        "crowd": np.zeros(0, bool),
        "area": np.zeros(0, np.float32),
        "image_id": 0,
    }


def make_transform(settings: Mapping[str, Any], *, train: bool) -> data.DetectionTransform:
    """Returns the transform of `config.data`."""
    options = {key: settings[key] for key in _TRANSFORM_KEYS}
    return data.make_detection_transforms(settings["image_size"], train=train, **options)


def make_task(
    config: Mapping[str, Any],
    model: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    class_names: tuple[str, ...],
) -> Detection:
    """Returns the task over a network."""
    return Detection(
        model=model,
        image_size=config["data"]["image_size"],
        mean=mean,
        std=std,
        class_names=class_names,
        **config["loss"],
        **config["detections"],
    )
