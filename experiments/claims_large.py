"""The claims under the protocol for an accelerator, see configs/cifar100/claims.py.

    python experiments/launch.py experiments/claims_large.py --workdir=runs/large
    python experiments/report.py --large --runs=runs/large

MobileNetV1 and MSDNet are four times as wide as in claims.py, other networks twice; where a claim
has epochs or a rate of its own, they are in the same proportion to the protocol's; a stand-in for
ResNet-50 of small maps keeps its own strides no longer.
"""

import dataclasses

import claim_networks
import claims
from claim import Claim, Plan, Variant

EPOCHS = 24.0  # of the protocol
RATE = 0.4
PADDING = 8  # of claim k's crops; the protocol has 4
ANNEAL_STEPS = 1563  # a third of the protocol's 4,688, as in claims.py
CHEAPER = 0.27  # width of the static network that costs what 8 experts do at 0.25x
# Of claims whose note in claims.py is about its own protocol.
NOTES = {
    "a": (
        "Mixing costs the same whatever a picture's size, so that on maps of 8 and 4 pixels 8 "
        "experts cost 1.18x the static network and 32 cost 1.70x, where they cost 1.09x and "
        "1.36x at 224 pixels. A static network as expensive as 8 experts stands in the table."
    ),
    "b": "8 experts, not 32, as in claims.py.",
    "l": (
        "50 of the 200 classes, every fourth, with 320 training pictures and 50 test pictures of "
        "each; the test pictures are few, and others would change an accuracy by a point. Epochs "
        "are the protocol's, so that there is a third of its steps. 8 experts cost 1.04x the "
        "static network, 32 cost 1.17x."
    ),
    "j": (
        "Experts and hidden units are chosen for as many multiply-adds as 8 experts cost at the "
        "other protocol's width; here MSDNet costs less."
    ),
    "d": "With one seed no two networks can be found alike.",
    "g": (
        "MnasNet-A2 is as we assume it (channels that fit its published cost). As in the configs "
        "of MnasNet, the head convolution has experts too."
    ),
}


def _large(variant: Variant) -> Variant:
    changes, label = dict(variant.changes), variant.label
    changes.pop("model.early_strides", None)
    if (width := changes.get("model.width")) is not None:
        larger = width * (4 if variant.network == "mobilenet_v1" else 2)
        if width == claim_networks.CHEAPER:
            larger = CHEAPER
        changes["model.width"] = larger
        label = label.replace(f"{width}x", f"{larger}x")
    for key in ("initial_channels", "growth_rate", "classifier_channels"):  # of MSDNet
        if f"model.{key}" in changes:
            changes[f"model.{key}"] *= 4
    if "data.padding" in changes:  # twice the protocol's, as more regularisation
        changes["data.padding"] = PADDING
    if "epochs" in changes:
        changes["epochs"] = changes["epochs"] * EPOCHS / claim_networks.EPOCHS
    if "schedule.learning_rate" in changes:
        changes["schedule.learning_rate"] *= RATE / claim_networks.RATE
    if "model.routing.anneal_steps" in changes:
        changes["model.routing.anneal_steps"] = ANNEAL_STEPS
    network = f"{variant.network},large"
    return dataclasses.replace(variant, changes=changes, label=label, network=network)


def _larger(claim: Claim) -> Claim:
    variants = tuple(map(_large, claim.variants))
    return dataclasses.replace(
        claim,
        variants=variants,
        note=NOTES.get(claim.key, claim.note),
        source=claim.source.replace("a ResNet-20 of half the width", "a ResNet-20"),
    )


PLAN = Plan(
    f"{claims.PLAN.title}, with an accelerator",
    tuple(map(_larger, claims.CLAIMS)),
    {factor: tuple(map(_large, length)) for factor, length in claim_networks.LENGTHS.items()},
)
SWEEP = PLAN.runs()
