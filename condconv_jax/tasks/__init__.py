"""What is trained: loss, metrics and evaluation of each task (floor 4)."""

from condconv_jax.tasks.classification import Classification
from condconv_jax.tasks.detection import Detection

__all__ = ["Classification", "Detection"]
