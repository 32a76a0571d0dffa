"""What lines of results come to, before they are a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from claim import Expectation, Plan
from claim_statistics import Finding, SeedDeviation, judge, pooled_deviation

Lines = Mapping[str, Sequence[Mapping[str, Any]]]  # variant -> its runs
CHANCE = 0.02  # top-1 at or below which, of 50 classes or 100, a network has learned nothing
# And what they are multiplied by.
MEASURES = {"top1": 100.0, "fit_top1": 100.0, "fit_loss": 1.0}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All lines of results, and what they come to.

    Attributes:
      runs: by variant, those that learned something, by seed.
      lost: by variant, those that failed or learned nothing.
      deviations: of each measure.
      half: variant -> half-width of its mean top-1 in points.
      findings: of each claim, one for each of its expectations.
      fits: of each claim the same of the training pictures, where it says anything of them: a
        difference in how well two networks fit is one of capacity; None elsewhere.
    """

    runs: Lines
    lost: Lines
    deviations: Mapping[str, SeedDeviation]
    half: Mapping[str, float]
    findings: Mapping[str, Sequence[Finding]]
    fits: Mapping[str, Sequence[Finding | None]]


def weigh(plan: Plan, found: Sequence[Mapping[str, Any]]) -> Evidence:
    """Returns what lines of results of the claims' variants come to."""
    runs: dict[str, list[Mapping[str, Any]]] = {name: [] for name in plan.variants()}
    lost: dict[str, list[Mapping[str, Any]]] = {name: [] for name in runs}
    for line in sorted(found, key=lambda line: line["seed"]):
        learned = "failed" not in line and line["top1"] > CHANCE
        (runs if learned else lost)[line["variant"]].append(line)
    values = {
        measure: {name: [scale * run[measure] for run in some] for name, some in runs.items()}
        for measure, scale in MEASURES.items()
    }
    deviations = {measure: pooled_deviation(known) for measure, known in values.items()}
    gaps = {
        name: float(np.mean([100 * (run["fit_top1"] - run["top1"]) for run in some]))
        for name, some in runs.items()
        if some
    }

    def judged(wanted: Expectation) -> Finding:
        return judge(wanted, values[wanted.measure], deviations[wanted.measure], gaps)

    findings = {c.key: [judged(wanted) for wanted in c.expectations] for c in plan.claims}
    fits = {
        c.key: [
            judged(dataclasses.replace(wanted, measure="fit_top1")) if _is_plain(wanted) else None
            for wanted in c.expectations
        ]
        for c in plan.claims
    }
    half = {name: deviations["top1"].half_width(len(some)) for name, some in runs.items() if some}
    return Evidence(runs, lost, deviations, half, findings, fits)


def _is_plain(wanted: Expectation) -> bool:
    """Whether an expectation is of top-1 and says nothing of how well networks generalise."""
    return wanted.measure == "top1" and not (wanted.overfits or wanted.beyond)
