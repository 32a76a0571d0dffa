"""Networks by name, with their options checked."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from condconv_jax.models.mobilenet_v1 import MobileNetV1
from condconv_jax.models.routing import RoutingOptions
from condconv_jax.names import unknown_name

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": MobileNetV1,
}


def names() -> list[str]:
    """Returns the names that `create` takes, sorted."""
    return sorted(MODELS)


def create(name: str, num_classes: int = 1000, **options: Any) -> nn.Module:
    """Returns an unbound network.

    `model.apply(variables, images, train=False)` maps (b, h, w, 3) normalised images to logits
    (b, num_classes).

    Args:
      name: one of `names()`.
      num_classes: classes, at least 1.
      **options: the network's fields. `routing` may be a mapping of `RoutingOptions`' fields.

    Raises:
      ValueError: for an unknown name or option, listing the choices and the nearest one.

    Examples:
      >>> model = create("mobilenet_v1", width=0.25, num_experts=32)
    """
    if name not in MODELS:
        raise unknown_name("models.create", "model", name, MODELS)
    if num_classes < 1:
        raise ValueError(f"models.create: num_classes is {num_classes}; pass at least 1")
    known = _field_names(MODELS[name])
    for option in options:
        if option not in known:
            raise unknown_name(f"models.create({name!r})", "option", option, known)
    routing = options.get("routing")
    if isinstance(routing, Mapping):
        fields = _field_names(RoutingOptions)
        for key in routing:
            if key not in fields:
                raise unknown_name(f"models.create({name!r})", "option of routing", key, fields)
        options["routing"] = RoutingOptions(**routing)
    return MODELS[name](num_classes=num_classes, **options)


def _field_names(dataclass: Any) -> list[str]:
    internal = ("parent", "name", "num_classes")  # Linen's own, and the one passed by position
    return [f.name for f in dataclasses.fields(dataclass) if f.name not in internal]
