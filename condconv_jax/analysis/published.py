"""Published multiply-adds and parameters, and the networks that should reproduce them."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class PublishedCost:
    """One row of a table.

    Attributes:
      network: its heading.
      name: what the row is.
      model: of `models.create`.
      options: likewise.
      madds: millions of multiply-adds of one image of the network's `IMAGE_SIZE`, in the digits of
        the source.
      source: where they are given; `BY_HAND` if nowhere.
      params: millions of parameters, likewise; None where the source gives none.
      form: "conv", or "mixture" for E convolutions instead of one.
    """

    network: str
    name: str
    model: str
    options: Mapping[str, Any]
    madds: float
    source: str
    params: float | None = None
    form: str = "conv"


TABLE_1, TABLE_2, TABLE_3, TABLE_4 = "table 1", "table 2", "table 3", "table 4"
OFFICIAL = "official code"  # its README, which gives the published totals
MNASNET = "MnasNet, table 1"
# The authors' response gives these networks' accuracies, and of the mixture that CondConv costs 7 %
# of it; the counts were worked out from the architecture, not by this package. Parameters so
# counted are those of kernels alone, without batch norms, routers and biases.
BY_HAND = "worked out by hand"


def _mobilenet_v1(name: str, madds: float, source: str, **options: Any) -> PublishedCost:
    params, form = options.pop("params", None), options.pop("form", "conv")
    return PublishedCost(
        "MobileNetV1", name, "mobilenet_v1", options, madds, source, params=params, form=form
    )


def _quarter(name: str, madds: float, source: str, **options: Any) -> PublishedCost:
    """A row of the network of tables 3 and 4."""
    return _mobilenet_v1(name, madds, source, **({"width": 0.25, "num_experts": 32} | options))


MOBILENET_V1 = (
    _mobilenet_v1("1.0x static", 567, TABLE_1),
    _mobilenet_v1("1.0x, 8 experts", 600, TABLE_1, num_experts=8),
    _mobilenet_v1("1.0x static, exactly", 568.7, BY_HAND, params=4.21),
    _mobilenet_v1("0.75x static", 325.4, BY_HAND, width=0.75),
    _mobilenet_v1("0.5x static", 149.5, BY_HAND, width=0.5),
    _quarter("0.25x static", 41.2, TABLE_4, num_experts=0),
    _quarter("begin layer 1", 56.3, TABLE_4, begin_layer=1),
    _quarter("begin layer 5", 56.0, TABLE_4, begin_layer=5),
    _quarter("begin layer 7 (default)", 55.7, TABLE_4, begin_layer=7),
    _quarter("begin layer 13", 52.5, TABLE_4, begin_layer=13),
    _quarter("begin layer 15 (classifier)", 49.3, TABLE_4, begin_layer=15),
    _quarter("begin layer 7, static classifier", 47.6, TABLE_4, cond_classifier=False),
    _quarter("layer 7 only", 41.3, BY_HAND, only_layer=7),
    _quarter("layer 13 only", 42.1, BY_HAND, only_layer=13),
    _quarter("softmax", 55.7, TABLE_3, routing={"activation": "softmax"}),
    _quarter("hierarchical", 55.7, TABLE_3, routing={"hierarchical": True}),
    _quarter("single", 55.5, TABLE_3, routing={"sharing": "single"}),
    _quarter("partially shared", 55.6, TABLE_3, routing={"sharing": "partial"}),
    _quarter("hidden, small", 55.6, TABLE_3, routing={"hidden": "small"}),
    _quarter("hidden, medium", 55.9, TABLE_3, routing={"hidden": "medium"}),
    _quarter("hidden, large", 57.8, TABLE_3, routing={"hidden": "large"}),
    _quarter("as a mixture of 32 convolutions", 789.6, BY_HAND, form="mixture"),
    _quarter("0.25x, 32 experts", 55.6, BY_HAND, params=14.5),
    _quarter("0.5x, 32 experts", 190.6, BY_HAND, width=0.5, params=41.2),
    _quarter("0.75x, 32 experts", 405, BY_HAND, width=0.75, params=79.9),
    _quarter("1.0x, 32 experts", 699, BY_HAND, width=1.0, params=130.6),
)


def _rows(network: str, *rows: tuple[Any, ...]) -> tuple[PublishedCost, ...]:
    """Rows of (name, model, options, millions of MADDs, source[, millions of parameters])."""
    return tuple(PublishedCost(network, *row) for row in rows)


EIGHT = {"num_experts": 8}

PUBLISHED = (
    *MOBILENET_V1,
    *_rows(
        "MobileNetV2",
        ("static", "mobilenet_v2", {}, 301, TABLE_1),
        ("static, exactly", "mobilenet_v2", {}, 300.8, BY_HAND, 3.47),
        ("8 experts (default)", "mobilenet_v2", EIGHT, 329, TABLE_1),
        (
            "8 experts, last 6 blocks and classifier",
            "mobilenet_v2",
            {**EIGHT, "begin_layer": 13, "cond_head": False},
            322.9,
            BY_HAND,
        ),
    ),
    *_rows(
        "MnasNet",
        ("A1 static", "mnasnet_a1", {}, 312, TABLE_1),
        ("A1 static, exactly", "mnasnet_a1", {}, 311.6, BY_HAND, 3.85),
        ("A1, 8 experts (default)", "mnasnet_a1", EIGHT, 325, TABLE_1),
        (
            "A1, 8 experts, static head convolution",
            "mnasnet_a1",
            {**EIGHT, "cond_head": False},
            322.2,
            BY_HAND,
        ),
        ("A2 static, as assumed", "mnasnet_a2", {}, 340, MNASNET, 4.8),
    ),
    *_rows(
        "ResNet-50",
        ("static", "resnet50", {}, 4093, TABLE_1),
        ("static, exactly", "resnet50", {}, 4089, BY_HAND),
        ("8 experts (default)", "resnet50", EIGHT, 4213, TABLE_1),
        (
            "8 experts, classifier for projection",
            "resnet50",
            {**EIGHT, "cond_projection": False, "cond_classifier": True},
            4213,
            TABLE_1,
        ),
    ),
    *_rows(
        "EfficientNet",
        ("B0 static", "efficientnet_b0", {}, 391, TABLE_1),
        ("B0 static, exactly", "efficientnet_b0", {}, 385.8, BY_HAND),
        ("B0-4e", "efficientnet_b0", {"num_experts": 4}, 402, OFFICIAL, 13.3),
        ("B0-4e, exactly", "efficientnet_b0", {"num_experts": 4}, 396.5, BY_HAND),
        ("B0-8e", "efficientnet_b0", EIGHT, 413, OFFICIAL, 24.0),
        ("B0-8e, exactly", "efficientnet_b0", EIGHT, 407.2, BY_HAND),
        ("B0-8e-depth", "efficientnet_b0_depth", EIGHT, 614, OFFICIAL, 39.7),
        ("B0-8e-depth, exactly", "efficientnet_b0_depth", EIGHT, 606.1, BY_HAND),
    ),
    *_rows(
        "SSD300 on MobileNetV1",
        *(
            (f"{width}x {name}", "ssd300_mobilenet_v1", {"width": width, **options}, madds, source)
            for width, published, exactly in (
                (0.5, (352, 363), (352.2, 362.8)),
                (0.75, (730, 755), (728.0, 751.8)),
                (1.0, (1230, 1280), (1237.1, 1279.3)),
            )
            for name, options, madds, source in (
                ("static", {}, published[0], TABLE_2),
                ("static, exactly", {}, exactly[0], BY_HAND),
                ("8 experts (default)", EIGHT, published[1], TABLE_2),
                ("8 experts, exactly", EIGHT, exactly[1], BY_HAND),
            )
        ),
    ),
)
