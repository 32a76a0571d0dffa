"""Object detection: anchors matched to boxes, losses, detections, average precision."""

from condconv_jax.tasks.detection.average_precision import average_precision, require_coco
from condconv_jax.tasks.detection.boxes import areas, clip, pairwise_coverage, pairwise_iou
from condconv_jax.tasks.detection.coder import decode, encode
from condconv_jax.tasks.detection.losses import (
    CLASS_LOSSES,
    focal_loss,
    hard_negative_loss,
    smooth_l1,
)
from condconv_jax.tasks.detection.matching import Targets, match_anchors
from condconv_jax.tasks.detection.nms import Detections, select_detections
from condconv_jax.tasks.detection.task import Detection

__all__ = [
    "CLASS_LOSSES",
    "Detection",
    "Detections",
    "Targets",
    "areas",
    "average_precision",
    "clip",
    "decode",
    "encode",
    "focal_loss",
    "hard_negative_loss",
    "match_anchors",
    "pairwise_coverage",
    "pairwise_iou",
    "require_coco",
    "select_detections",
    "smooth_l1",
]
