"""Networks by name, with their options checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import jax.numpy as jnp

from condconv_jax.models.efficientnet import EfficientNetB0, EfficientNetB0Depth, EfficientNetB1
from condconv_jax.models.layers import COND_LAYERS
from condconv_jax.models.mnasnet import MnasNetA1, MnasNetA2
from condconv_jax.models.mobilenet_v1 import MobileNetV1
from condconv_jax.models.mobilenet_v2 import MobileNetV2
from condconv_jax.models.msdnet import MSDNet
from condconv_jax.models.resnet import ResNet50
from condconv_jax.models.resnet_cifar import ResNetCifar
from condconv_jax.models.routing import RoutingOptions
from condconv_jax.models.ssd import SSD300MobileNetV1
from condconv_jax.names import unknown_name

# Fields of a Linen module that are not options, and the one that is passed by position.
INTERNAL = ("parent", "name", "num_classes")

MODELS: dict[str, Any] = {
    "efficientnet_b0": EfficientNetB0,
    "efficientnet_b0_depth": EfficientNetB0Depth,
    "efficientnet_b1": EfficientNetB1,
    "mnasnet_a1": MnasNetA1,
    "mnasnet_a2": MnasNetA2,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "msdnet": MSDNet,
    "resnet50": ResNet50,
    "resnet_cifar": ResNetCifar,
    "ssd300_mobilenet_v1": SSD300MobileNetV1,
}


def names(task: str | None = None) -> list[str]:
    """Returns the names that `create` takes, sorted.

    Args:
      task: only networks for it, "classification" or "detection"; None for all.
    """
    return sorted(name for name, made in MODELS.items() if task in (None, made.TASK))


def default_options(name: str) -> dict[str, Any]:
    """Returns the options that `create` takes for a network, with their defaults as plain values.

    Args:
      name: one of `names()`.

    Raises:
      ValueError: for an unknown name.
    """
    if name not in MODELS:
        raise unknown_name("models.default_options", "model", name, MODELS)
    return {key: _plain(key, value) for key, value in _defaults(MODELS[name]).items()}


def describe(options: Mapping[str, Any]) -> str:
    """Returns in a few words what is conditional in a network: "static", "8 experts", ...

    Args:
      options: of `create`, all of them.
    """
    layer, experts = options.get("cond_layer", "condconv"), options.get("num_experts", 0)
    least = COND_LAYERS.get(layer, 2)
    if experts < least:
        return "static"
    counted = f"{experts} {'hidden units' if layer == 'dynamic_filter' else 'experts'}"
    return counted if layer == "condconv" else f"{layer}, {counted}" if least else layer


def mixed_kernels(options: Mapping[str, Any]) -> int:
    """Returns how many kernels a network's convolution mixes for each example; 0 if none does.

    Args:
      options: of `create`, all of them.
    """
    layer, experts = options.get("cond_layer", "condconv"), options.get("num_experts", 0)
    least = COND_LAYERS.get(layer, 2)
    if not least or experts < least:
        return 0
    # The bias of a filter generator's second layer is one kernel more.
    return int(experts) + (layer == "dynamic_filter")


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, RoutingOptions):
        return dataclasses.asdict(value)
    return jnp.dtype(value).name if key == "dtype" else value


def _defaults(dataclass: Any) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(dataclass) if f.name not in INTERNAL}


def create(name: str, num_classes: int | None = None, **options: Any) -> Any:
    """Returns an unbound network.

    `model.apply(variables, images, train=False)` maps (b, h, w, 3) normalised images to logits
    (b, num_classes); a detector's are `Predictions`.

    Args:
      name: one of `names()`.
      num_classes: classes, at least 1; None for those of the publication, 1000 of ImageNet or 90 of
        COCO.
      **options: the network's fields. `routing` may be a mapping of `RoutingOptions`' fields.

    Raises:
      ValueError: for an unknown name or option, listing the choices and the nearest one, or for
        an option of another type than its default.

    Examples:
      >>> model = create("mobilenet_v1", width=0.25, num_experts=32)
    """
    if name not in MODELS:
        raise unknown_name("models.create", "model", name, MODELS)
    if num_classes is None:
        num_classes = MODELS[name].num_classes  # the field's default
    if num_classes < 1:
        raise ValueError(f"models.create: num_classes is {num_classes}; pass at least 1")
    where = f"models.create({name!r})"
    options = _checked(where, "option", options, MODELS[name])
    return MODELS[name](num_classes=num_classes, **options)


def _checked(where: str, what: str, options: Mapping[str, Any], dataclass: Any) -> dict[str, Any]:
    """The options, each a field of the dataclass and of its default's type."""
    defaults = _defaults(dataclass)
    any_length = {f.name for f in dataclasses.fields(dataclass) if Ellipsis in get_args(f.type)}
    checked = dict(options)
    for key, value in options.items():
        if key not in defaults:
            raise unknown_name(where, what, key, defaults)
        default = defaults[key]
        if isinstance(default, RoutingOptions) and isinstance(value, Mapping):
            checked[key] = RoutingOptions(
                **_checked(where, f"option of {key}", value, RoutingOptions)
            )
        elif isinstance(default, tuple):
            checked[key] = _as_tuple(where, key, value, default, any_length=key in any_length)
        elif not _is_like(value, default):
            raise ValueError(f"{where}: {key} is {value!r}; pass a value like {default!r}")
    return checked


def _as_tuple(
    where: str, key: str, value: Any, default: tuple, *, any_length: bool
) -> tuple[Any, ...]:
    """A tuple or list as a tuple, which a module's field has to be to have a hash."""
    fits = isinstance(value, tuple | list) and all(_is_like(item, 1) for item in value)
    if not fits or not (any_length or len(value) == len(default)):
        wanted = f"{default!r}" if default else "(1, 2), or ()"
        raise ValueError(f"{where}: {key} is {value!r}; pass a value like {wanted}")
    return tuple(value)


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value can stand for a default; dtypes, which have many forms, are left to JAX."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float if isinstance(default, float) else int)
    return not isinstance(default, str | RoutingOptions) or isinstance(value, type(default))
