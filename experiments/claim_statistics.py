"""Means, intervals and verdicts on the runs of a claim.

Few seeds of each variant say little about how much its accuracy varies by the seed; those of all
variants together say enough. So the standard deviation is pooled over all variants with more than
one seed on the same pictures, and a difference of means has the half-width
t * s * sqrt(1/n + 1/m) at 95 %. A variant with one seed borrows the deviation of the others, which
is an assumption; pages say so.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.stats
from claim import Expectation

# Points of top-1 that "alike" allows: what three seeds of each can tell, as with a deviation of 0.7
# a difference has an interval of 1.4, and less than what claims call a difference.
ALIKE = 2.0
CONFIDENCE = 0.95

# Variant -> what a measure is in each of its seeds.
Values = Mapping[str, Sequence[float]]
Verdict = Literal["confirmed", "undecided", "contradicted", "not tested", "not testable"]


@dataclasses.dataclass(frozen=True)
class SeedDeviation:
    """How much a measure varies by the seed.

    Attributes:
      value: standard deviation, pooled over variants.
      freedom: degrees of freedom that it rests on; 0 if no variant has two seeds.
    """

    value: float
    freedom: int

    def half_width(self, *counts: int) -> float:
        """Returns the half-width of the 95 % interval of a mean, or of sums and differences.

        Args:
          counts: seeds of each of the means.
        """
        if not self.freedom:
            return math.inf
        t = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)
        return float(t * self.value * math.sqrt(sum(1 / n for n in counts)))


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the runs say about an expectation.

    Attributes:
      expectation: it.
      difference: of the means, less that of `beyond`; None where runs are missing.
      half_width: of its 95 % interval; infinite with a single seed everywhere.
      seeds: the fewest of a variant in it.
      verdict: on it.
    """

    expectation: Expectation
    difference: float | None
    half_width: float
    seeds: int
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the runs say about a part of a claim that is no comparison of accuracies.

    Attributes:
      statement: of it.
      here: what was measured, in words.
      verdict: on it.
    """

    statement: str
    here: str
    verdict: Verdict


def pooled_deviation(values: Values) -> SeedDeviation:
    """Returns the pooled standard deviation."""
    groups = [np.asarray(seeds) for seeds in values.values() if len(seeds) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return SeedDeviation(math.nan, 0)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return SeedDeviation(math.sqrt(squares / freedom), freedom)


def judge(
    expectation: Expectation, values: Values, deviation: SeedDeviation, *, testable: bool = True
) -> Finding:
    """Returns what the runs say about an expectation.

    "above" is confirmed where the whole interval is above 0 and contradicted where it is below,
    "below" the other way round; "alike" where it lies within `ALIKE` points of 0, and wholly
    outside. All else is undecided.

    Args:
      expectation: of two variants, or of two differences.
      values: of its measure.
      deviation: of all variants, in that measure.
      testable: False where a network that has to overfit does not, so that nothing follows.
    """
    of_each = [values.get(name, ()) for name in expectation.names]
    if not all(len(seeds) for seeds in of_each):
        return Finding(expectation, None, math.inf, 0, "not tested")
    signs = (1, -1, -1, 1)
    difference = float(
        sum(sign * np.mean(seeds) for sign, seeds in zip(signs, of_each, strict=False))
    )
    counts = [len(seeds) for seeds in of_each]
    half = deviation.half_width(*counts)
    low, high = difference - half, difference + half
    if expectation.relation == "below":
        low, high = -high, -low
    verdict: Verdict = "undecided"
    if not testable:
        verdict = "not testable"
    elif expectation.relation != "alike":
        verdict = "confirmed" if low > 0 else "contradicted" if high < 0 else "undecided"
    elif max(-low, high) <= ALIKE:
        verdict = "confirmed"
    elif low > ALIKE or high < -ALIKE:
        verdict = "contradicted"
    return Finding(expectation, difference, half, min(counts), verdict)


def verdict_of(verdicts: Sequence[Verdict]) -> str:
    """Returns the verdict on a claim in a few words, by those on its expectations.

    One where all are the same, else what each is, those that there are to decide first; "" for
    none.
    """
    if not verdicts:
        return ""
    counts = {
        kind: verdicts.count(kind)
        for kind in ("confirmed", "contradicted", "undecided", "not testable", "not tested")
    }
    judged = {kind: n for kind, n in counts.items() if n}
    if set(judged) <= {"not testable", "not tested"}:
        return "not testable here" if "not testable" in judged else "not tested yet"
    if len(judged) == 1:
        return next(iter(judged))
    parts = [f"{n} {kind}" for kind, n in judged.items()]
    return f"{parts[0]} of {len(verdicts)}, {', '.join(parts[1:])}"
