"""The networks (floor 3), by name."""

from condconv_jax.models.early_exit import average_madds, leave_early
from condconv_jax.models.efficientnet import EfficientNetB0, EfficientNetB0Depth, EfficientNetB1
from condconv_jax.models.folding import fold_batch_norm, folds
from condconv_jax.models.mnasnet import MnasNetA1, MnasNetA2
from condconv_jax.models.mobilenet_v1 import MobileNetV1
from condconv_jax.models.mobilenet_v2 import MobileNetV2
from condconv_jax.models.msdnet import MSDNet
from condconv_jax.models.registry import (
    MODELS,
    create,
    default_options,
    describe,
    mixed_kernels,
    names,
)
from condconv_jax.models.resnet import ResNet50
from condconv_jax.models.routing import RoutingOptions
from condconv_jax.models.sparsify import mean_routing, sparsifies, sparsify
from condconv_jax.models.ssd import Predictions, SSD300MobileNetV1

__all__ = [
    "MODELS",
    "EfficientNetB0",
    "EfficientNetB0Depth",
    "EfficientNetB1",
    "MSDNet",
    "MnasNetA1",
    "MnasNetA2",
    "MobileNetV1",
    "MobileNetV2",
    "Predictions",
    "ResNet50",
    "RoutingOptions",
    "SSD300MobileNetV1",
    "average_madds",
    "create",
    "default_options",
    "describe",
    "fold_batch_norm",
    "folds",
    "leave_early",
    "mean_routing",
    "mixed_kernels",
    "names",
    "sparsifies",
    "sparsify",
]
