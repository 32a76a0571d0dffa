"""The networks that claims.py compares, each as what it changes of the protocol."""

from collections.abc import Sequence
from typing import Any

from claim import Variant

# Of the network of most claims. The paper's has 32, on 1.28 million pictures; here are 50,000, and
# a run with 8 takes hardly longer than one of the static network.
EXPERTS = 8
EPOCHS = 48.0  # of the protocol
WIDTHS = (0.125,)  # beside the protocol's own
CHEAPER = 0.09375  # width of the static network that costs what 8 experts do at the protocol's


def with_experts(number: int, **changes: Any) -> dict[str, Any]:
    """Returns the changes of a network with so many experts; of others "__" stands for a dot."""
    return {"model.num_experts": number, **{k.replace("__", "."): v for k, v in changes.items()}}


def _kind(experts: int) -> str:
    return f"{experts} experts" if experts else "static"


def routed(name: str, label: str, **routing: Any) -> Variant:
    """The network of table 3 with another routing."""
    changes = {f"model.routing.{key}": value for key, value in routing.items()}
    return Variant(name, label, {**with_experts(EXPERTS), **changes})


RATE = 0.2  # of the protocol
# At it all routing weights of the classifier are 0 within an epoch, and stay so.
RELU_SLOW = Variant(
    "relu_slow",
    "ReLU, a quarter of the rate",
    with_experts(EXPERTS, model__routing__activation="relu", schedule__learning_rate=RATE / 4),
)
# Sigmoid routing at that rate, which RELU_SLOW is compared with.
BASE_SLOW = Variant(
    "experts8_slow",
    "8 experts, a quarter of the rate",
    with_experts(EXPERTS, schedule__learning_rate=RATE / 4),
)


def placed(name: str, label: str, **options: Any) -> Variant:
    """The network of table 4 with other CondConv layers."""
    changes = {f"model.{key}": value for key, value in options.items()}
    return Variant(name, label, {**with_experts(EXPERTS), **changes})


def _trained(variant: Variant, name: str, factor: float) -> Variant:
    """The network trained for a multiple of the protocol's epochs."""
    if factor == 1:
        return variant
    changes = {**variant.changes, "epochs": factor * EPOCHS}
    return Variant(f"{variant.name}_{name}", f"{variant.label}, {factor:g}x the epochs", changes)


# Of the two that most others are compared with: six seeds beside three tell as much as four beside
# four.
SEEDS = 6
STATIC = Variant("static", "static", {}, seeds=SEEDS)
COND = {
    n: Variant(f"experts{n}", f"{n} experts", with_experts(n), seeds=SEEDS if n == EXPERTS else 0)
    for n in (2, 4, 8, 16, 32)
}
BASE = COND[EXPERTS]
# What the protocol's length leaves to be learned, by either network.
LENGTHS = {
    factor: tuple(_trained(v, name, factor) for v in (STATIC, BASE))
    for name, factor in (("short", 0.5), ("", 1.0), ("long", 2.0))
}
WIDER = tuple(
    Variant(
        f"width{width}_{f'experts{experts}' if experts else 'static'}",
        f"{width}x, {_kind(experts)}",
        {**with_experts(experts), "model.width": width},
    )
    for width in WIDTHS
    for experts in (0, 8)
)
SAME_COST = Variant(f"width{CHEAPER}_static", f"{CHEAPER}x, static", {"model.width": CHEAPER})

# The least at which A1 and A2 differ: channels are multiples of 8.
MNASNET = {"model.width": 0.25}
# Over a third of the steps.
ANNEALED = {"model.routing.initial_temperature": 30.0, "model.routing.anneal_steps": 12_500}


RESNET = {"model.width": 0.5, "model.early_strides": (2, 2, 2)}


def resnet(experts: int, noise: str = "none") -> Variant:
    """The network that stands in for ResNet-50, with regularised experts or not."""
    regularised = "" if noise == "none" else f", {noise}"
    return Variant(
        f"resnet_experts{experts}{regularised.replace(', ', '_')}",
        f"{_kind(experts)}{regularised}",
        {**RESNET, **with_experts(experts), "model.routing.noise": noise},
        network="resnet_cifar",
    )


# Of claim e, and what relatives are compared with: they have a static classifier, too.
NO_CLASSIFIER = placed("no_classifier", "from 7, no classifier", cond_classifier=False)


def relative(layer: str, label: str, experts: int = 0, **changes: Any) -> Variant:
    """The network with another kind of layer where CondConv layers are."""
    return Variant(layer, label, {**with_experts(experts), "model.cond_layer": layer, **changes})


# At 0.5, the default, MobileNetV1 learns nothing: experts that are first independent leave as much
# noise as signal in every convolution, and there are no shortcuts.
DROP_RATE = 0.1
# As in arXiv 1811.11168; at the rate of all else samples of the last layer leave its map, of 2
# pixels, within an epoch, and nothing is learned.
OFFSETS = {"optimizer.offset_rate": 0.1}
# Percent of the training pictures, and the epochs that make as many steps as all of them.
FRACTIONS = {percent: EPOCHS * 100 / percent for percent in (10, 25, 50)}


def fraction(percent: int, experts: int, *, drop: bool = False) -> Variant:
    """The network trained on a part of the pictures, with experts dropped or not."""
    changes = with_experts(experts)
    if drop:
        changes |= {"model.routing.noise": "drop", "model.routing.drop_rate": DROP_RATE}
    if percent < 100:
        changes |= {"data.train": f"train[:{percent}%]", "epochs": FRACTIONS[percent]}
    return Variant(
        f"data{percent}_{experts or 'static'}{'_drop' if drop else ''}",
        f"{percent} % of the pictures, {_kind(experts)}{', drop' if drop else ''}",
        changes,
    )


def compared(
    name: str, label: str, *, experts: Sequence[int] = (EXPERTS,), **changes: Any
) -> tuple[Variant, ...]:
    """The static network and that with experts under other conditions."""
    return tuple(
        Variant(f"{name}_{n or 'static'}", f"{label}, {_kind(n)}", with_experts(n, **changes))
        for n in (0, *experts)
    )


DROPPED = {
    (percent, n): fraction(percent, n, drop=True)
    for percent in (10, 25, 50, 100)
    for n in (2, 8, 32)
}
CROPPED = compared("crops", "crops", data__padding=2)
# With 32, too, which overfit most: the paper's networks with many experts are trained with mixup.
MIXED = compared("mixup", "mixup", experts=(EXPERTS, 32), mixup=0.2)
# Experts that the same pictures are routed to get the same gradients, and weight decay takes what
# they began with: all but those of the classifier become multiples of one.
NO_DECAY = compared("no_decay", "no weight decay", optimizer__weight_decay=0.0)
COARSE = compared("coarse", "20 classes of 2,500 pictures", data__labels="coarse")
LARGER_PICTURES = {
    "data.path": "data/tiny-imagenet-50",
    "data.image_size": 64,
    "data.statistics": "tiny_imagenet_50",
    "data.eval": "val",
}
TINY_IMAGENET = tuple(
    Variant(f"tiny_{n or 'static'}", _kind(n), {**with_experts(n), **LARGER_PICTURES})
    for n in (0, EXPERTS, 32)
)
FEWER = {(percent, n): fraction(percent, n) for percent in FRACTIONS for n in (0, 2, 8, 32)}
