"""Claim b, whose first half is an identity and not a comparison of accuracies."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from claim_evidence import Lines
from claim_first_steps import MIXTURE as MIXTURE_METHOD
from claim_first_steps import ONE, OTHER
from claim_statistics import Observation, Verdict, agreed, mean_interval

from condconv_jax import analysis, models

KEY = "b"
MIXTURE = "mixture8"
DIFFERENCE = 1e-3  # of a logit over the largest: the same sum in another order, in float32
AGREEMENT = 0.999  # share of pictures of the same class: two logits may be as near as rounding
COST = 0.07  # of the mixture's multiply-adds, as claimed
# Steps after which losses of the same seed are to differ by rounding alone, and what that may be of
# a loss: a hundred roundings of a float32. Their growth is exponential, and a step that is wrong
# by a thousandth shows at once.
FIRST, ROUNDING = 10, 1e-5
# Times as far as two programs of one convolution part, that a mixture may lie from it: what four
# seeds can tell.
FARTHER = 2.0


def findings(lines: Lines, first_steps: Mapping[str, Any]) -> list[Observation]:
    """Returns what the runs say beside the comparison of accuracies.

    Args:
      lines: runs by variant.
      first_steps: what claim_first_steps.py wrote; empty if it did not.
    """
    share = cost_share()
    return [
        _outputs(lines.get(MIXTURE, ())),
        _first(first_steps),
        _parting(first_steps),
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
        _holds(same),
    )


def _first(first_steps: Mapping[str, Any]) -> Observation:
    """Whether the first steps are the same but for rounding."""
    statement = f"losses of the first {FIRST} steps of training are the same but for rounding"
    if not first_steps:
        return Observation(statement, "", "not tested")
    rows = np.array(first_steps["step"]) <= FIRST
    one, mixture = (np.array(first_steps["losses"][m])[:, rows] for m in (ONE, MIXTURE_METHOD))
    farthest = (np.abs(mixture - one) / one).max(axis=1)
    return Observation(
        statement,
        f"they differ by {farthest.max():.0e} at most, in {len(one)} seeds",
        _holds([bool(of_seed <= ROUNDING) for of_seed in farthest]),
    )


def _holds(runs: Sequence[bool]) -> Verdict:
    """The verdict on an identity, which one run refutes."""
    return agreed([all(runs)] if runs else [])


def _parting(first_steps: Mapping[str, Any]) -> Observation:
    """Whether a mixture parts from one convolution no faster than another program of it does."""
    statement = (
        f"curves of a mixture and of one convolution part less than {FARTHER:g} times as far as "
        "those of two programs of one convolution"
    )
    if not first_steps:
        return Observation(statement, "", "not tested")
    mixture, other = (apart(first_steps, m).mean(axis=1) for m in (MIXTURE_METHOD, OTHER))
    ratio, half = mean_interval(np.log(mixture / other).tolist())
    low, mean, high = np.exp([ratio - half, ratio, ratio + half])
    return Observation(
        statement,
        f"{mixture.mean():.3f} and {other.mean():.3f} nats in the mean of "
        f"{first_steps['step'][-1]:,} steps: {mean:.2f} times as far ({low:.2f} to {high:.2f}, "
        f"{len(mixture)} seeds)",
        "confirmed" if high < FARTHER else "contradicted" if low > FARTHER else "undecided",
    )


def apart(first_steps: Mapping[str, Any], method: str) -> np.ndarray:
    """Returns how far losses are from those of one convolution.

    Args:
      first_steps: what claim_first_steps.py wrote.
      method: of the other program.

    Returns:
      In nats, by seed and row.
    """
    losses = first_steps["losses"]
    return np.abs(np.array(losses[method]) - np.array(losses[ONE]))


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
