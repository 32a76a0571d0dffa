"""Object detection: boxes, their codes, detections and how good they are (floor 4)."""

from condconv_jax.tasks.detection.average_precision import average_precision, require_coco
from condconv_jax.tasks.detection.boxes import areas, clip, pairwise_coverage, pairwise_iou
from condconv_jax.tasks.detection.coder import decode, encode
from condconv_jax.tasks.detection.nms import Detections, select_detections

__all__ = [
    "Detections",
    "areas",
    "average_precision",
    "clip",
    "decode",
    "encode",
    "pairwise_coverage",
    "pairwise_iou",
    "require_coco",
    "select_detections",
]
