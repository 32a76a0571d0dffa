"""Means, intervals and verdicts on the runs of a claim.

Few seeds of each variant say little about how much its accuracy varies by the seed; those of all
variants together say enough. So the standard deviation is pooled over all variants with more than
one seed, and a difference of means has the half-width t * s * sqrt(1/n + 1/m) at 95 %.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.stats
from claim import Expectation

ALIKE = 1.0  # points of top-1 that "alike" allows
CONFIDENCE = 0.95

# Variant -> what a measure is in each of its seeds.
Values = Mapping[str, Sequence[float]]
Verdict = Literal["confirmed", "undecided", "contradicted", "not tested"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """How much a measure varies by the seed.

    Attributes:
      deviation: standard deviation, pooled over variants.
      freedom: degrees of freedom that it rests on; 0 if no variant has two seeds.
    """

    deviation: float
    freedom: int

    def half_width(self, *counts: int) -> float:
        """Returns the half-width of the 95 % interval of a mean, or a difference of two.

        Args:
          counts: seeds of each of the one or two means.
        """
        if not self.freedom:
            return math.inf
        t = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)
        return float(t * self.deviation * math.sqrt(sum(1 / n for n in counts)))


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the runs say about an expectation.

    Attributes:
      expectation: it.
      difference: of the means; None where runs are missing.
      half_width: of its 95 % interval; infinite with a single seed everywhere.
      verdict: on it.
    """

    expectation: Expectation
    difference: float | None
    half_width: float
    verdict: Verdict


def pooled_spread(values: Values) -> Spread:
    """Returns the pooled standard deviation."""
    groups = [np.asarray(seeds) for seeds in values.values() if len(seeds) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return Spread(math.nan, 0)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return Spread(math.sqrt(squares / freedom), freedom)


def judge(expectation: Expectation, values: Values, spread: Spread) -> Finding:
    """Returns what the runs say about an expectation.

    "above" is confirmed where the whole interval is above 0 and contradicted where it is below;
    "alike" where it lies within `ALIKE` points of 0, and wholly outside. All else is undecided.

    Args:
      expectation: of two variants.
      values: of its measure.
      spread: of all variants, in that measure.
    """
    ours, others = values.get(expectation.of, ()), values.get(expectation.than, ())
    if not len(ours) or not len(others):
        return Finding(expectation, None, math.inf, "not tested")
    difference = float(np.mean(ours) - np.mean(others))
    half = spread.half_width(len(ours), len(others))
    low, high = difference - half, difference + half
    verdict: Verdict = "undecided"
    if expectation.relation == "above":
        verdict = "confirmed" if low > 0 else "contradicted" if high < 0 else "undecided"
    elif max(-low, high) <= ALIKE:
        verdict = "confirmed"
    elif low > ALIKE or high < -ALIKE:
        verdict = "contradicted"
    return Finding(expectation, difference, half, verdict)


def verdict_of(findings: Sequence[Finding]) -> str:
    """Returns the verdict on a claim in a few words, by those on its expectations."""
    verdicts = [finding.verdict for finding in findings]
    tested = [verdict for verdict in verdicts if verdict != "not tested"]
    if not tested:
        return "not tested yet"
    counts = {kind: tested.count(kind) for kind in ("confirmed", "undecided", "contradicted")}
    if counts["confirmed"] == len(verdicts):
        return "confirmed"
    if counts["contradicted"] == len(verdicts):
        return "contradicted"
    if counts["undecided"] == len(verdicts):
        return "undecided"
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    missing = len(verdicts) - len(tested)
    return f"of {len(verdicts)}: {said}" + (f", {missing} not tested yet" if missing else "")
