"""Intervals and verdicts, by hand."""

import math

import numpy as np
import pytest
from claim import Expectation
from claim_statistics import (
    ALIKE,
    SeedDeviation,
    agreed,
    holm,
    judge,
    mean_interval,
    pooled_deviation,
    sizes_of,
    untestable,
    verdict_of,
)


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
        (["confirmed (one seed)", "confirmed"], "1 confirmed of 2, 1 confirmed (one seed)"),
        (
            ["not tested", "contradicted", "undecided"],
            "1 contradicted of 3, 1 undecided, 1 not tested",
        ),
    ],
)
def test_a_claim_is_as_good_as_its_expectations(verdicts, said):
    assert verdict_of(verdicts) == said


@pytest.mark.parametrize(
    ("of", "paper", "size"),
    [
        ([50, 51], 10.2, "compatible"),
        ([50, 51], 12.0, "smaller"),
        ([50, 51], 5.0, "larger"),
        ([40, 41], 0.5, "the paper's or none"),
        ([30, 31], 10.0, "smaller"),  # the other way round
        ([50, 51], None, ""),
        ([], 5.0, ""),
    ],
)
def test_size_beside_the_papers(of, paper, size):
    deviation = SeedDeviation(0.3, 20)  # half a difference of two pairs: 0.63 points
    wanted = Expectation("a", "b", paper=paper)
    found = judge(wanted, {"a": of, "b": [40, 41]}, deviation)
    assert found.size == size


def test_how_often_equal_networks_are_found_alike():
    # Half of the interval of two pairs is 2.0860 * 0.5: 0.957 points are left, 1.914 errors.
    assert SeedDeviation(0.5, 20).found_alike(2, 2) == pytest.approx(0.944, abs=1e-3)
    rng = np.random.default_rng(0)
    differences = np.subtract(*rng.normal(size=(2, 20_000, 2)).mean(axis=2)) * 0.5
    found = np.abs(differences) + 2.0860 * 0.5 <= ALIKE
    assert found.mean() == pytest.approx(0.944, abs=0.01)
    assert SeedDeviation(1.0, 20).found_alike(1, 3) == 0  # an interval of 2.4 points
    assert SeedDeviation(math.nan, 0).found_alike(3, 3) == 0


def test_sizes_in_words():
    deviation = SeedDeviation(0.3, 20)
    found = [
        judge(Expectation("a", "b", paper=paper), {"a": [50, 51], "b": [40, 41]}, deviation)
        for paper in (10.0, 12.0, 12.0, None)
    ]
    assert sizes_of([*found, untestable(Expectation("a", "b", paper=12.0))]) == (
        "1 compatible, 2 smaller"
    )


def test_p_values():
    # (50.5 - 49.5) / (1 * sqrt(1/2 + 1/2)): Student's t of 1 with 20 degrees of freedom.
    found = judge(Expectation("a", "b"), {"a": [50, 51], "b": [49, 50]}, SeedDeviation(1.0, 20))
    assert found.p_value == pytest.approx(0.3293, abs=1e-4)
    alike = judge(Expectation("a", "b", "alike"), {"a": [50], "b": [49]}, SeedDeviation(1.0, 20))
    assert math.isnan(alike.p_value)


def test_what_holm_rejects():
    # 0.005 <= 0.05 / 4 and 0.01 <= 0.05 / 3, but 0.03 > 0.05 / 2, and 0.04 comes after it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([]) == []


def test_a_mean_of_some_runs():
    # A standard deviation of 1 with 2 degrees of freedom: t = 4.3027.
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3027 / math.sqrt(3), rel=1e-4))
    assert mean_interval([5.0]) == (5.0, math.inf)


def test_what_is_found_most_of_the_time():
    # Quantiles of Student's t with 20 degrees of freedom at 97.5 and 80 %: 2.0860 and 0.8600.
    assert SeedDeviation(1.0, 20).detectable(2, 2) == pytest.approx(2.946, abs=1e-3)
    # By simulation, as the sum of two quantiles is an approximation.
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(20_000, 2, 2)) + np.array([2.946, 0.0])[:, None]
    deviations = np.sqrt(rng.chisquare(20, 20_000) / 20)
    found = np.abs(np.subtract(*pairs.mean(axis=2).T)) > 2.0860 * deviations
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    assert SeedDeviation(math.nan, 0).detectable(3, 3) == math.inf


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ([True, True], "confirmed"),
        ([True, False], "undecided"),
        ([False], "contradicted"),
        ([], "not tested"),
    ],
)
def test_runs_that_speak_for_themselves(runs, verdict):
    assert agreed(runs) == verdict
