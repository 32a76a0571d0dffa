"""What is trained: loss, metrics and evaluation of each task (floor 4)."""

from condconv_jax.tasks.classification import Classification

__all__ = ["Classification"]
