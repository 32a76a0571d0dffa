"""Object detection: boxes, their codes, and which of them are detections (floor 4)."""

from condconv_jax.tasks.detection.boxes import areas, clip, pairwise_coverage, pairwise_iou
from condconv_jax.tasks.detection.coder import decode, encode
from condconv_jax.tasks.detection.nms import Detections, select_detections

__all__ = [
    "Detections",
    "areas",
    "clip",
    "decode",
    "encode",
    "pairwise_coverage",
    "pairwise_iou",
    "select_detections",
]
