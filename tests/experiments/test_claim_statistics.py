"""Intervals and verdicts, by hand."""

import math

import numpy as np
import pytest
from claim import Expectation
from claim_statistics import SeedDeviation, judge, pooled_deviation, verdict_of


def test_deviation_is_pooled_over_variants():
    # (1 + 1) / 1 and (4 + 0 + 4) / 2 around means 11 and 20: (2 + 8) / 3 in all.
    deviation = pooled_deviation({"a": [10, 12], "b": [18, 20, 22], "c": [50]})
    assert deviation.freedom == 3
    assert deviation.value == pytest.approx(math.sqrt(10 / 3))
    # Student's t at 97.5 % with 3 degrees of freedom is 3.1824.
    assert deviation.half_width(3) == pytest.approx(3.1824 * math.sqrt(10 / 9), rel=1e-4)
    assert deviation.half_width(3, 1) == pytest.approx(3.1824 * math.sqrt(10 / 3 * 4 / 3), rel=1e-4)
    assert pooled_deviation({"a": [10]}).half_width(1) == math.inf


@pytest.mark.parametrize(
    ("of", "than", "relation", "verdict"),
    [
        ([50, 51], [40, 41], "above", "confirmed"),
        ([40, 41], [50, 51], "above", "contradicted"),
        ([50, 51], [50, 51], "above", "undecided"),
        ([40, 41], [50, 51], "below", "confirmed"),
        ([50, 51], [40, 41], "below", "contradicted"),
        ([50, 51], [49, 50], "alike", "confirmed"),
        ([50, 51], [40, 41], "alike", "contradicted"),
        ([50, 51], [48, 49], "alike", "undecided"),
        ([], [40], "above", "not tested"),
    ],
)
def test_verdicts(of, than, relation, verdict):
    deviation = SeedDeviation(0.3, 20)  # half a difference of two pairs: 0.63 points
    found = judge(Expectation("a", "b", relation), {"a": of, "b": than}, deviation)
    assert found.verdict == verdict
    if of:
        assert found.difference == pytest.approx(np.mean(of) - np.mean(than))
        assert found.half_width == pytest.approx(0.626, abs=1e-3)


def test_a_gain_that_grows():
    wanted = Expectation("a", "b", beyond=("c", "d"))
    values = {"a": [9, 9], "b": [4, 4], "c": [5, 5], "d": [3, 3]}
    found = judge(wanted, values, SeedDeviation(0.5, 20))
    assert found.difference == pytest.approx((9 - 4) - (5 - 3))
    # Student's t at 97.5 % with 20 degrees of freedom is 2.0860; four means of two seeds each.
    assert found.half_width == pytest.approx(2.0860 * 0.5 * math.sqrt(4 / 2), rel=1e-4)
    assert found.verdict == "confirmed"
    assert judge(wanted, {**values, "d": []}, SeedDeviation(0.5, 20)).verdict == "not tested"


def test_one_seed_decides_nothing():
    found = judge(Expectation("a", "b"), {"a": [90], "b": [10]}, pooled_deviation({"a": [90]}))
    assert found.verdict == "undecided"


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["confirmed", "confirmed"], "confirmed"),
        (["contradicted"], "contradicted"),
        (["undecided", "undecided"], "undecided"),
        (["not tested"], "not tested yet"),
        (["not tested", "not testable"], "not testable here"),
        (["confirmed", "not testable"], "1 confirmed of 2, 1 not testable"),
        (
            ["not tested", "contradicted", "undecided"],
            "1 contradicted of 3, 1 undecided, 1 not tested",
        ),
    ],
)
def test_a_claim_is_as_good_as_its_expectations(verdicts, said):
    assert verdict_of(verdicts) == said
