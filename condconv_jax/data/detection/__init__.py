"""Pictures with boxes: sources of detection data, SSD's augmentations, and transforms."""

from condconv_jax.data.detection.augment import Expand, RandomFlips, RandomOverlapCrop
from condconv_jax.data.detection.boxes import box_areas, box_overlap, clip_boxes
from condconv_jax.data.detection.coco import CocoSource, open_coco
from condconv_jax.data.detection.counts import ObjectCounts, object_counts
from condconv_jax.data.detection.photometric import PhotometricDistortion, recoloured
from condconv_jax.data.detection.registry import DETECTION_SOURCES, open_detection_source
from condconv_jax.data.detection.sample import DetectionSample, DetectionSource
from condconv_jax.data.detection.scene import (
    ResizeFrame,
    Scene,
    SceneStep,
    flip_horizontally,
    flip_vertically,
    paint,
    whole_scene,
)
from condconv_jax.data.detection.tfds import TfdsDetectionSource, open_tfds_detection
from condconv_jax.data.detection.transforms import (
    FLIPS,
    MEAN_COLOUR,
    DetectionTransform,
    EvalDetectionTransform,
    TrainDetectionTransform,
    make_detection_transforms,
)

__all__ = [
    "DETECTION_SOURCES",
    "FLIPS",
    "MEAN_COLOUR",
    "CocoSource",
    "DetectionSample",
    "DetectionSource",
    "DetectionTransform",
    "EvalDetectionTransform",
    "Expand",
    "ObjectCounts",
    "PhotometricDistortion",
    "RandomFlips",
    "RandomOverlapCrop",
    "ResizeFrame",
    "Scene",
    "SceneStep",
    "TfdsDetectionSource",
    "TrainDetectionTransform",
    "box_areas",
    "box_overlap",
    "clip_boxes",
    "flip_horizontally",
    "flip_vertically",
    "make_detection_transforms",
    "object_counts",
    "open_coco",
    "open_detection_source",
    "open_tfds_detection",
    "paint",
    "recoloured",
    "whole_scene",
]
