"""What lines of results come to, before they are a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from claim import Expectation, Plan
from claim_statistics import Finding, SeedDeviation, holm, judge, pooled_deviation, untestable

Lines = Mapping[str, Sequence[Mapping[str, Any]]]  # variant -> its runs
# Top-1, in that of guessing, at or below which a network has learned nothing.
CHANCE = 2.0
# Top-1 on training pictures from which a network knows them by heart; losses say no more then.
BY_HEART = 0.999
# Measures, and what they are multiplied by.
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
      findings: of each claim, one for each of its expectations. Where a run of a network learned
        nothing or failed, those that did not are no sample of it: it is compared with nothing.
      fits: of each claim the same of the training pictures, where it says anything of them: a
        difference in how well two networks fit is one of capacity; None elsewhere, and where both
        know all of them.
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
    values = {
        measure: {name: [scale * run[measure] for run in some] for name, some in runs.items()}
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
        if any(dead[name] or failed[name] for name in wanted.names):
            return untestable(wanted)
        deviation = deviations[variants[wanted.of].data][wanted.measure]
        testable = wanted.overfits is None or overfits(*wanted.overfits)
        return judge(wanted, values[wanted.measure], deviation, testable=testable)

    def overfits(one: str, other: str) -> bool:
        """Whether one fits training pictures better, and is not told to be better on others.

        Of what knows all of them by heart nothing can be told to fit better.
        """
        fits = judged(Expectation(one, other, "below", "fit_loss"))
        return (fits.verdict == "confirmed" or by_heart(one)) and judged(
            Expectation(one, other)
        ).verdict in ("undecided", "contradicted")

    def by_heart(name: str) -> bool:
        return bool(runs[name]) and all(run["fit_top1"] >= BY_HEART for run in runs[name])

    def judged_fit(wanted: Expectation) -> Finding | None:
        if not _is_plain(wanted) or all(by_heart(name) for name in wanted.names):
            return None
        return judged(dataclasses.replace(wanted, measure="fit_top1"))

    findings = {c.key: [judged(wanted) for wanted in c.expectations] for c in plan.claims}
    fits = {c.key: [judged_fit(wanted) for wanted in c.expectations] for c in plan.claims}
    of_top1 = {data: measures["top1"] for data, measures in deviations.items()}
    half = {n: of_top1[variants[n].data].half_width(len(some)) for n, some in runs.items() if some}
    return Evidence(runs, dead, failed, of_top1, half, findings, fits)


def corrected(evidence: Evidence) -> tuple[list[Finding], list[Finding]]:
    """Returns the comparisons on test pictures that were made, and those that Holm's method keeps.

    The latter are told from none if all of them are to be right.
    """
    # Once, where two claims compare the same networks.
    made = {
        (finding.expectation.names, finding.expectation.relation): finding
        for findings in evidence.findings.values()
        for finding in findings
        if finding.expectation.measure == "top1"
        and np.isfinite(finding.p_value)
        and finding.verdict != "not testable"
    }
    once = list(made.values())
    kept = holm([finding.p_value for finding in once])
    return once, [finding for finding, keep in zip(once, kept, strict=True) if keep]


def mean(runs: Sequence[Mapping[str, Any]], key: str, scale: float = 1.0) -> float:
    """Returns the mean of a measure over runs, times `scale`."""
    return float(np.mean([scale * run[key] for run in runs]))


def _is_plain(wanted: Expectation) -> bool:
    """Whether an expectation is of top-1 and says nothing of how well networks generalise."""
    # What is worse on test pictures overfits.
    of_overfitting = wanted.overfits or wanted.beyond or wanted.relation == "below"
    return wanted.measure == "top1" and not of_overfitting
