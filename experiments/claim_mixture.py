"""Claim b, whose first half is an identity and not a comparison of accuracies."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from claim_evidence import Lines
from claim_networks import BASE
from claim_statistics import Observation, Verdict

from condconv_jax import analysis, models

KEY = "b"
MIXTURE = "mixture8"
DIFFERENCE = 1e-3  # of a logit over the largest: the same sum in another order, in float32
AGREEMENT = 0.999  # share of pictures of the same class: two logits may be as near as rounding
COST = 0.07  # of the mixture's multiply-adds, as claimed


def findings(lines: Lines) -> list[Observation]:
    """Returns what the runs say beside the comparison of accuracies."""
    share = cost_share()
    return [
        _outputs(lines.get(MIXTURE, ())),
        _curves(lines.get(BASE.name, ()), lines.get(MIXTURE, ())),
        Observation(
            f"one convolution has {100 * COST:.0f} % of the multiply-adds of 32 (the paper's "
            "network, 224 pixels)",
            f"{100 * share:.1f} %, counted",
            "confirmed" if round(share, 2) <= COST else "contradicted",
        ),
    ]


def _outputs(mixtures: Sequence[Mapping[str, Any]]) -> Observation:
    compared = [run["as_one"] for run in mixtures if "as_one" in run]
    same = [c["difference"] <= DIFFERENCE and c["agreement"] >= AGREEMENT for c in compared]
    return Observation(
        "a mixture of convolutions, run as one convolution with its weights, gives the same logits "
        "and classes",
        ", ".join(
            f"logits differ by {c['difference']:.0e} of the largest; {100 * c['agreement']:.1f} % "
            f"of {c['images']:,} pictures are of the same class"
            for c in compared
        ),
        _verdict(all(same), compared),
    )


def _curves(one: Sequence[Mapping[str, Any]], mixtures: Sequence[Mapping[str, Any]]) -> Observation:
    """Whether both train as much alike as two seeds of one of them do."""
    by_seed = {run["seed"]: np.array(run["train_curve"])[:, 1] for run in one}
    pairs = [(by_seed[m["seed"]], m) for m in mixtures if m["seed"] in by_seed]
    between = [_apart(by_seed[a], by_seed[b]) for a in by_seed for b in by_seed if a < b]
    found = [_apart(curve, np.array(m["train_curve"])[:, 1]) for curve, m in pairs]
    tested = found if between else []
    return Observation(
        "training losses of the same seed lie no farther apart than those of two seeds",
        f"{np.mean(found):.3f} nats on average, {np.mean(between):.3f} between seeds"
        if tested
        else "",
        _verdict(bool(tested) and max(found) <= max(between), tested),
    )


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def _verdict(holds: bool, tested: Sequence[Any]) -> Verdict:
    if not tested:
        return "not tested"
    return "confirmed" if holds else "contradicted"


@functools.cache
def cost_share() -> float:
    """Returns the multiply-adds of one convolution with mixed kernels over those of the mixture.

    Of the paper's network: MobileNetV1 0.25x with 32 experts on 224 pixels, its classifier too.
    """
    model = models.create("mobilenet_v1", 1000, width=0.25, num_experts=32)
    one, mixture = (
        sum(cost.total for cost in analysis.layer_costs(model, 224, form=form))
        for form in ("conv", "mixture")
    )
    return one / mixture
