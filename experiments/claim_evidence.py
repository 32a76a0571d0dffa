"""What lines of results come to, before they are a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from claim import Expectation, Plan
from claim_statistics import Finding, SeedDeviation, judge, pooled_deviation

Lines = Mapping[str, Sequence[Mapping[str, Any]]]  # variant -> its runs
# Top-1, in that of guessing, at or below which a network has learned nothing.
CHANCE = 2.0
# And what they are multiplied by.
MEASURES = {"top1": 100.0, "fit_top1": 100.0, "fit_loss": 1.0}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All lines of results, and what they come to.

    Attributes:
      runs: by variant, those that learned something, by seed.
      dead: by variant, those that learned nothing.
      failed: by variant, those that have no result.
      deviations: of top-1, by where the pictures are, `Variant.data`.
      half: variant -> half-width of its mean top-1 in points.
      findings: of each claim, one for each of its expectations. A network whose runs all learned
        nothing is judged by what they did: that it does not train is a result.
      fits: of each claim the same of the training pictures, where it says anything of them: a
        difference in how well two networks fit is one of capacity; None elsewhere.
    """

    runs: Lines
    dead: Lines
    failed: Lines
    deviations: Mapping[str, SeedDeviation]
    half: Mapping[str, float]
    findings: Mapping[str, Sequence[Finding]]
    fits: Mapping[str, Sequence[Finding | None]]


def weigh(plan: Plan, found: Sequence[Mapping[str, Any]]) -> Evidence:
    """Returns what lines of results of the claims' variants come to."""
    variants = plan.variants()
    runs, dead, failed = ({name: [] for name in variants} for _ in range(3))
    for line in sorted(found, key=lambda line: line["seed"]):
        if "failed" in line:
            kind = failed
        else:
            kind = runs if line["top1"] > CHANCE / line["classes"] else dead
        kind[line["variant"]].append(line)
    judged_by = {name: runs[name] or dead[name] for name in variants}
    values = {
        measure: {name: [scale * run[measure] for run in some] for name, some in judged_by.items()}
        for measure, scale in MEASURES.items()
    }
    deviations = {
        data: {
            measure: pooled_deviation(
                {n: known[n] for n, v in variants.items() if v.data == data and runs[n]}
            )
            for measure, known in values.items()
        }
        for data in dict.fromkeys(variant.data for variant in variants.values())
    }

    def judged(wanted: Expectation) -> Finding:
        deviation = deviations[variants[wanted.of].data][wanted.measure]
        testable = wanted.overfits is None or _overfits(*wanted.overfits, values)
        return judge(wanted, values[wanted.measure], deviation, testable=testable)

    findings = {c.key: [judged(wanted) for wanted in c.expectations] for c in plan.claims}
    fits = {
        c.key: [
            judged(dataclasses.replace(wanted, measure="fit_top1")) if _is_plain(wanted) else None
            for wanted in c.expectations
        ]
        for c in plan.claims
    }
    of_top1 = {data: measures["top1"] for data, measures in deviations.items()}
    half = {n: of_top1[variants[n].data].half_width(len(some)) for n, some in runs.items() if some}
    return Evidence(runs, dead, failed, of_top1, half, findings, fits)


def _overfits(one: str, other: str, values: Mapping[str, Mapping[str, Sequence[float]]]) -> bool:
    """Whether a network fits training pictures better than another, and test pictures not."""
    if not (values["top1"][one] and values["top1"][other]):
        return False
    loss, top1 = (
        [float(np.mean(values[measure][name])) for name in (one, other)]
        for measure in ("fit_loss", "top1")
    )
    return loss[0] < loss[1] and top1[0] <= top1[1]


def _is_plain(wanted: Expectation) -> bool:
    """Whether an expectation is of top-1 and says nothing of how well networks generalise."""
    return wanted.measure == "top1" and not (wanted.overfits or wanted.beyond)
