"""The networks (floor 3), by name."""

from condconv_jax.models.mobilenet_v1 import MobileNetV1
from condconv_jax.models.registry import MODELS, create, names
from condconv_jax.models.routing import RoutingOptions

__all__ = ["MODELS", "MobileNetV1", "RoutingOptions", "create", "names"]
