"""Means, intervals and verdicts on the runs of a claim.

Few seeds of each variant say little about how much its accuracy varies by the seed; those of all
variants together say enough. So the standard deviation is pooled over all variants with more than
one seed on the same pictures, and a difference of means has the half-width
t * s * sqrt(1/n + 1/m) at 95 %. A variant with one seed borrows the deviation of the others, which
is an assumption; pages say so. What has no such company, as a correlation in each of some runs, has
the deviation of its own.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.stats
from claim import Expectation

# Points of top-1 that "alike" allows: less than what claims call a difference, and what three seeds
# of each can tell, if with a deviation of 0.9 in half of all experiments only (`found_alike`).
ALIKE = 2.0
CONFIDENCE = 0.95
EITHER = "the paper's or none"  # size of a difference whose interval holds both
EXACT = sys.float_info.min  # instead of an error of 0, to divide by
POWER = 0.8  # share of experiments that find a difference which is called detectable

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
        return _t((1 + CONFIDENCE) / 2, self.freedom) * self.error(*counts)

    def error(self, *counts: int) -> float:
        """Returns the standard error of what `half_width` is of."""
        return self.value * math.sqrt(sum(1 / n for n in counts))

    def detectable(self, *counts: int) -> float:
        """Returns the true difference that is told from none in `POWER` of all experiments.

        To a few percent: the sum of two quantiles of Student's distribution stands for one of a
        non-central distribution.
        """
        if not self.freedom:
            return math.inf
        both = _t((1 + CONFIDENCE) / 2, self.freedom) + _t(POWER, self.freedom)
        return both * self.error(*counts)

    def found_alike(self, *counts: int) -> float:
        """Returns the share of experiments in which two equal networks are found alike."""
        room = ALIKE - self.half_width(*counts)
        if not self.freedom or room <= 0:
            return 0.0
        return 1 - 2 * float(scipy.stats.norm.sf(room / max(self.error(*counts), EXACT)))


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the runs say about an expectation.

    Attributes:
      expectation: it.
      difference: of the means, less that of `beyond`; None where runs are missing.
      half_width: of its 95 % interval; infinite with a single seed everywhere.
      seeds: the fewest of a variant in it.
      verdict: on its direction.
      p_value: two-sided, of there being no difference; NaN where that is not asked.
    """

    expectation: Expectation
    difference: float | None
    half_width: float
    seeds: int
    verdict: Verdict
    p_value: float = math.nan

    @property
    def said(self) -> str:
        """The verdict, and whether a single seed decides it."""
        return _marked(self.verdict, self.seeds)

    @property
    def size(self) -> str:
        """The difference beside the paper's.

        "smaller", "larger", or "compatible" where its interval holds the paper's, which says
        nothing where it holds none as well: "the paper's or none". "" where there are not both, or
        nothing was to differ.
        """
        paper = self.expectation.paper
        if not paper or self.difference is None or not np.isfinite(self.half_width):
            return ""
        if self.expectation.relation == "alike" or self.verdict == "not testable":
            return ""
        if abs(self.difference - paper) <= self.half_width:
            return EITHER if abs(self.difference) <= self.half_width else "compatible"
        return "smaller" if self.difference / paper < 1 else "larger"


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the runs say about a part of a claim that is no comparison of accuracies.

    Attributes:
      statement: of it.
      here: what was measured, in words.
      verdict: on it.
      seeds: that it rests on; None where it is no matter of chance.
    """

    statement: str
    here: str
    verdict: Verdict
    seeds: int | None = None

    @property
    def said(self) -> str:
        """The verdict, and whether a single seed decides it."""
        return _marked(self.verdict, self.seeds)


def _marked(verdict: Verdict, seeds: int | None) -> str:
    alone = seeds == 1 and verdict in ("confirmed", "contradicted")
    return f"{verdict} (one seed)" if alone else verdict


def _t(probability: float, freedom: int) -> float:
    return float(scipy.stats.t.ppf(probability, freedom))


def pooled_deviation(values: Values) -> SeedDeviation:
    """Returns the pooled standard deviation."""
    groups = [np.asarray(seeds) for seeds in values.values() if len(seeds) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return SeedDeviation(math.nan, 0)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return SeedDeviation(math.sqrt(squares / freedom), freedom)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of some runs and its half-width at 95 %, infinite for a single run."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)), math.inf
    half = _t((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return float(np.mean(values)), float(half)


def agreed(runs: Sequence[bool]) -> Verdict:
    """Returns the verdict on what each run says for itself: undecided if they disagree."""
    if not runs:
        return "not tested"
    return "confirmed" if all(runs) else "undecided" if any(runs) else "contradicted"


def holm(p_values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[bool]:
    """Returns which hypotheses are rejected if there is to be no false rejection among all.

    Holm, 1979: the smallest p-value has to lie below level / n, the next below level / (n - 1),
    and so on until one does not.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


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
    p_value = math.nan
    if deviation.freedom and expectation.relation != "alike":
        error = max(deviation.error(*counts), EXACT)
        p_value = 2 * float(scipy.stats.t.sf(abs(difference) / error, deviation.freedom))
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
    return Finding(expectation, difference, half, min(counts), verdict, p_value)


def untestable(expectation: Expectation) -> Finding:
    """Returns the finding where a network that is compared did not train."""
    return Finding(expectation, None, math.inf, 0, "not testable")


def sizes_of(findings: Sequence[Finding]) -> str:
    """Returns in a few words how differences compare with the paper's; "" for none."""
    sizes = [finding.size for finding in findings]
    kinds = ("compatible", "smaller", "larger", EITHER)
    return ", ".join(f"{sizes.count(kind)} {kind}" for kind in kinds if kind in sizes)


def verdict_of(verdicts: Sequence[str]) -> str:
    """Returns the verdict on a claim in a few words, by what is said of its expectations.

    One where all are the same, else what each is, those that there are to decide first; "" for
    none.
    """
    if not verdicts:
        return ""
    decided = [
        f"{kind}{seeds}" for kind in ("confirmed", "contradicted") for seeds in ("", " (one seed)")
    ]
    counts = {
        kind: verdicts.count(kind) for kind in (*decided, "undecided", "not testable", "not tested")
    }
    judged = {kind: n for kind, n in counts.items() if n}
    if set(judged) <= {"not testable", "not tested"}:
        return "not testable here" if "not testable" in judged else "not tested yet"
    if len(judged) == 1:
        return next(iter(judged))
    parts = [f"{n} {kind}" for kind, n in judged.items()]
    return f"{parts[0]} of {len(verdicts)}, {', '.join(parts[1:])}"
