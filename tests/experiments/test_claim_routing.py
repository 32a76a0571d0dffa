"""What runs say of routing by depth, by hand; and the networks whose latency is measured for it."""

import dataclasses
import types

import claim_latency
import claim_routing
import pytest


def run(specificity, near_zero, histogram, *, seed=0, top1=0.5, kept=None):
    """Of a network with 8 experts, by layer: class specificity and share of weights near 0."""
    layers = {
        f"layer_{index}": {
            "specificity": value,
            "spread": value / 10,
            "near_zero": zero,
            "use": [0.5] * 8,
            "histogram": histogram,
        }
        for index, (value, zero) in enumerate(zip(specificity, near_zero, strict=True))
    }
    kept = {} if kept is None else {"2": kept}  # a quarter of the weights
    return {
        "run": f"experts8_{seed}",
        "seed": seed,
        "top1": top1,
        "routing": layers,
        "last_top_k": kept,
        "mean_top_k": {},
    }


def shares(low, middle, high):
    """Twenty bins, of which the first, the middle and the last four hold so much."""
    rest = (1 - low - middle - high) / 8
    return [low / 4] * 4 + [rest] * 4 + [middle / 4] * 4 + [rest] * 4 + [high / 4] * 4


RISING, FALLING = (0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)
BIMODAL, EVEN = shares(0.5, 0.1, 0.2), shares(0.2, 0.2, 0.2)
SPARSE, DENSE = (0.0, 0.1, 0.2, 0.5), (0.5, 0.2, 0.1, 0.0)


def verdicts(*runs):
    return [one.said for one in claim_routing.findings({"experts8": runs})]


def test_what_the_paper_says_is_confirmed():
    runs = [run(RISING, SPARSE, BIMODAL, seed=seed, kept=0.495) for seed in range(2)]
    # Trends of both measures, weights near 0, their shape, what a quarter in the last layer costs.
    assert verdicts(*runs) == [*["confirmed"] * 5, "not tested"]


def test_the_opposite_is_contradicted():
    runs = [run(FALLING, DENSE, EVEN, seed=seed, kept=0.48) for seed in range(2)]
    assert verdicts(*runs) == [*["contradicted"] * 5, "not tested"]


def test_runs_that_disagree_decide_nothing():
    runs = [run(RISING, SPARSE, BIMODAL, kept=0.495), run(FALLING, DENSE, EVEN, seed=1, kept=0.48)]
    assert verdicts(*runs) == [*["undecided"] * 5, "not tested"]


def test_a_single_run_is_marked_and_has_no_interval():
    assert verdicts(run(RISING, SPARSE, BIMODAL, kept=0.495)) == [
        *["undecided"] * 2,
        "confirmed (one seed)",
        "undecided",
        "confirmed (one seed)",
        "not tested",
    ]


def test_weights_are_bimodal_by_the_lesser_peak():
    # Of 50, 10 and 20 %, and of 30, 10 and 40: 10 and 20 points; 12.7062 * 7.0711 / sqrt(2).
    both = [run(RISING, SPARSE, BIMODAL), run(RISING, SPARSE, shares(0.3, 0.1, 0.4))]
    found = claim_routing.findings({"experts8": both})[3]
    assert found.here == "+15.0 ± 63.5 (2 runs, +10.0 to +20.0)"
    assert found.verdict == "undecided"
    # The network with the most experts is judged; of others it is said.
    found = claim_routing.findings({"experts8": both, "experts32": both[:1]})[3]
    assert found.here == "+10.0 (1 runs, +10.0 to +10.0); +15.0 with 8 experts"


def test_every_network_that_was_asked_says_what_a_quarter_costs():
    # Of two experts there is no quarter.
    lines = {
        "experts2": [{**run(RISING, SPARSE, BIMODAL, kept=0.3), "run": "experts2_0"}],
        "experts8": [run(RISING, SPARSE, BIMODAL, kept=0.495)],
    }
    for layer in lines["experts2"][0]["routing"].values():
        layer["use"] = [0.5] * 2
    assert claim_routing.findings(lines)[4].here == "0.5 (experts8_0)"


def test_trends_are_of_all_numbers_of_experts():
    # Rank correlations of 1, 1 and -1: a mean of 1/3, and 4.3027 * 1.1547 / sqrt(3) around it.
    lines = {
        "experts8": [run(RISING, SPARSE, BIMODAL)],
        "experts32": [run(RISING, SPARSE, BIMODAL), run(FALLING, SPARSE, BIMODAL)],
    }
    found = claim_routing.findings(lines)[0]
    assert found.here == "+0.33 ± 2.87 (3 runs, -1.00 to +1.00)"


def test_a_measure_that_is_the_same_in_all_layers_has_no_trend():
    runs = [run((0.2,) * 4, SPARSE, BIMODAL, seed=seed) for seed in range(2)]
    assert claim_routing.findings({"experts8": runs})[0].here.startswith("+0.00 ± 0.00")


@pytest.mark.parametrize(("top1", "verdict"), [(0.4899, "contradicted"), (0.4901, "confirmed")])
def test_a_quarter_may_cost_a_point(top1, verdict):
    runs = [run(RISING, SPARSE, BIMODAL, seed=seed, kept=top1) for seed in range(2)]
    assert verdicts(*runs)[4] == verdict


@dataclasses.dataclass(frozen=True)
class Routing:
    top_k: int = 0


@dataclasses.dataclass(frozen=True)
class Network:
    """Nothing but what was done to it."""

    num_experts: int = 32
    routing: Routing = Routing()
    mixes: int | str = "all"
    folded: bool = False

    def clone(self, **changes):
        return dataclasses.replace(self, **changes)

    def init(self, key, picture):
        return {}

    def apply(self, variables, picture, *, train):
        raise AssertionError("nothing is run")


def test_latencies_are_of_the_networks_that_they_are_named_after(monkeypatch):
    changes = types.SimpleNamespace(
        fold_batch_norm=lambda network, _: (network.clone(folded=True), {"of": network}),
        mean_routing=lambda network, variables, pictures: {},
        sparsify=lambda network, variables, means, k: (network.clone(mixes=f"mean + {k}"), {}),
    )
    monkeypatch.setattr(claim_latency, "models", changes)
    monkeypatch.setattr(claim_latency.jax, "device_put", lambda values: values)
    monkeypatch.setattr(claim_latency, "ready", lambda function, *arguments: (function, arguments))
    monkeypatch.setattr(claim_latency, "interleave", lambda calls, *, rounds: calls)
    timed = claim_latency._latencies(Network(), 8, 1)
    networks = {name: function.__wrapped__.func.__self__ for name, (function, _) in timed.items()}
    folded = Network(folded=True)
    assert networks == {
        "all": folded,
        "static": folded.clone(num_experts=0),
        **{f"{k} largest": folded.clone(routing=Routing(k)) for k in claim_latency.KEPT},
        **{f"mean + {k}": folded.clone(mixes=f"mean + {k}") for k in claim_latency.KEPT},
    }
    for name, (function, (weights, picture)) in timed.items():
        # What is left of all weights has those of the whole network, everything else its own.
        own = networks[name].clone(folded=False, routing=Routing())
        assert weights == {"of": own}, name
        assert picture.shape == (1, 8, 8, 3)
        assert function.__wrapped__.keywords == {"train": False}
