"""timm's networks that are ours, and the options that make ours the same."""

import dataclasses
from typing import Any

from condconv_jax import models
from condconv_jax.models import RoutingOptions
from condconv_jax.models.network import Network
from condconv_jax.names import unknown_name

# PyTorch's padding and batch norm, those of networks that were not ported from TensorFlow.
_TORCH: dict[str, Any] = {"padding": "SYMMETRIC", "batch_norm_epsilon": 1e-5}
_FIXED = {**_TORCH, "fix_ends": True}


@dataclasses.dataclass(frozen=True)
class TimmNetwork:
    """A network of timm's.

    Attributes:
      model: our name of it.
      options: of `models.create`.
      statistics: that its first published weights expect, a name in `data.STATISTICS`.
      image_size: that those were trained at, in pixels.
    """

    model: str
    options: dict[str, Any]
    statistics: str = "imagenet"
    image_size: int = 224


def _efficientnet_cc(prefix: str, options: dict[str, Any]) -> dict[str, TimmNetwork]:
    statistics = "inception" if prefix else "imagenet"
    rows = (("b0_4e", "b0", 4, 224), ("b0_8e", "b0", 8, 224), ("b1_8e", "b1", 8, 240))
    return {
        f"{prefix}efficientnet_cc_{name}": TimmNetwork(
            f"efficientnet_{size}", {**options, "num_experts": experts}, statistics, pixels
        )
        for name, size, experts, pixels in rows
    }


TIMM: dict[str, TimmNetwork] = {
    **_efficientnet_cc("tf_", {}),
    **_efficientnet_cc("", _TORCH),
    "tf_efficientnet_b0": TimmNetwork("efficientnet_b0", {}),
    "tf_efficientnet_b1": TimmNetwork("efficientnet_b1", {}, image_size=240),
    "efficientnet_b0": TimmNetwork("efficientnet_b0", _TORCH),
    "efficientnet_b1": TimmNetwork("efficientnet_b1", _TORCH, "inception", 240),
    "mobilenetv1_100": TimmNetwork("mobilenet_v1", _TORCH, "inception"),
    "mobilenetv1_100h": TimmNetwork("mobilenet_v1", {**_TORCH, "head_conv": True}, "inception"),
    "mobilenetv1_125": TimmNetwork("mobilenet_v1", {**_TORCH, "width": 1.25}, "inception"),
    **{
        f"mobilenetv2_{round(100 * width):03}": TimmNetwork(
            "mobilenet_v2", {**_TORCH, "width": width}
        )
        for width in (0.35, 0.5, 0.75, 1.0, 1.4)
    },
    "mobilenetv2_110d": TimmNetwork("mobilenet_v2", {**_FIXED, "width": 1.1, "depth": 1.2}),
    "mobilenetv2_120d": TimmNetwork("mobilenet_v2", {**_FIXED, "width": 1.2, "depth": 1.4}),
    **{
        f"semnasnet_{round(100 * width):03}": TimmNetwork("mnasnet_a1", {**_TORCH, "width": width})
        for width in (0.5, 0.75, 1.0, 1.4)
    },
    "resnet50": TimmNetwork("resnet50", {}),
}

# Options that leave weights and evaluation as they are.
_FREE = {
    "num_classes",
    "dropout",
    "drop_path",
    "batch_norm_momentum",
    "batch_norm_bias",
    "batch_norm_group",
    "dtype",
    "method",
}
# Options that say which layers are conditional; compared by what they say.
_PLACEMENT = {
    "begin_layer",
    "only_layer",
    "cond_groups",
    "cond_head",
    "cond_classifier",
    "cond_projection",
}
# Options of conditional layers.
_OF_EXPERTS = {"num_experts", "routing", "cond_layer"}


def names() -> list[str]:
    """Returns timm's names of the networks that we have, sorted."""
    return sorted(TIMM)


def find(name: str) -> TimmNetwork:
    """Returns a network of timm's by its name, with or without a tag after a dot.

    Raises:
      ValueError: for an unknown name, listing the known ones.
    """
    # "tf_efficientnet_cc_b0_4e.in1k" says which weights: the network is the same, what its images
    # look like may not be, of which TimmNetwork has what the first weights want.
    base = name.partition(".")[0]
    if base not in TIMM:
        raise unknown_name("timm", "network", name, TIMM)
    return TIMM[base]


def make(name: str, num_classes: int = 1000) -> Network:
    """Returns our network that computes what timm's of this name does.

    Raises:
      ValueError: for an unknown name.
    """
    network = find(name)
    return models.create(network.model, num_classes, **network.options)


def check_same(name: str, model: Network) -> None:
    """Checks that a network of ours computes what timm's of this name does.

    Raises:
      ValueError: for an unknown name, or naming every option that differs.
    """
    wanted = make(name, model.num_classes)
    if _architecture(model) != _architecture(wanted):
        same = [other for other in names() if _architecture(make(other)) == _architecture(model)]
        raise ValueError(
            f"to_timm: timm's {name} is {type(wanted).__name__}, this is {type(model).__name__}; "
            + (f"pass one of {', '.join(same)}" if same else "timm has none of that")
        )
    found, layers = _options(model), wanted.conditional_layers()
    different = [
        f"{option} is {found[option]!r}, there {value!r}"
        for option, value in _options(wanted).items()
        if found[option] != value and (layers or option not in _OF_EXPERTS)
    ]
    if model.conditional_layers() != layers:
        different.append(
            f"layers {sorted(model.conditional_layers()) or 'none'} are CondConv, there "
            f"{sorted(layers) or 'none'}"
        )
    if different:
        raise ValueError(f"to_timm: this is not timm's {name}: {'; '.join(different)}")


def _architecture(model: Network) -> object:
    """What two networks have to share but for their options: a table of blocks, or their class."""
    return getattr(model, "STAGES", type(model))


def _options(model: Network) -> dict[str, Any]:
    """The options that matter in evaluation."""
    options = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    # Noise and annealing are of training; the temperature that is left at its end matters.
    options["routing"] = RoutingOptions(
        **{
            name: value
            for name, value in dataclasses.asdict(model.routing).items()
            if name not in ("noise", "drop_rate", "initial_temperature", "anneal_steps")
        }
    )
    return {k: v for k, v in options.items() if k not in _FREE | _PLACEMENT | {"parent", "name"}}
