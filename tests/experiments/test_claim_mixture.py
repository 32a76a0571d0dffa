"""What a mixture of convolutions says beside one convolution, by hand."""

import claim_mixture
import pytest
from mixture_fakes import first_steps, mixtures


@pytest.mark.parametrize(
    ("as_one", "steps", "verdicts"),
    [
        ({}, {}, ["confirmed", "confirmed", "confirmed"]),
        ({"agreement": 0.99}, {"farther": 3.0}, ["contradicted", "confirmed", "contradicted"]),
        ({"difference": 0.1}, {"start": 1e-3}, ["contradicted", "contradicted", "confirmed"]),
        ({}, {"farther": 2.0}, ["confirmed", "confirmed", "undecided"]),
        # One seed says nothing of how far another may be.
        ({}, {"seeds": 1}, ["confirmed", "confirmed", "undecided"]),
    ],
)
def test_a_mixture_is_one_convolution(as_one, steps, verdicts):
    found = claim_mixture.findings(mixtures(**as_one), first_steps(**steps))
    assert [one.verdict for one in found] == [*verdicts, "confirmed"]


def test_how_far_a_mixture_parts():
    # Rows of 0.1 nats but for two of 1e-6: 38 / 40 * 0.1, and half of it for the mixture.
    found = claim_mixture.findings({}, first_steps(farther=0.5))[2].here
    assert found.startswith("0.048 and 0.095 nats in the mean of 200 steps: 0.50 times as far (0.4")


def test_one_run_refutes_an_identity():
    same, other = mixtures()["mixture8"], mixtures(difference=0.1)["mixture8"]
    steps = first_steps(seeds=2)
    steps["losses"]["mixture"][1][0] *= 1.001
    found = claim_mixture.findings({"mixture8": same + other}, steps)
    assert [one.verdict for one in found][:2] == ["contradicted"] * 2


def test_nothing_is_said_of_mixtures_that_are_not_there():
    assert [one.verdict for one in claim_mixture.findings({}, {})][:3] == ["not tested"] * 3


def test_the_paper_counts_as_we_do():
    # One convolution has 7 % of the multiply-adds, the response says.
    assert claim_mixture.cost_share() == pytest.approx(0.07, abs=0.001)
