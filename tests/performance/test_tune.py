import types

import jax.numpy as jnp
import pytest

from condconv_jax import ops
from condconv_jax.performance import against_static, timing, tune
from condconv_jax.performance.layers import LAYERS, Layer
from condconv_jax.performance.machine import Peaks
from condconv_jax.performance.roofline import bound, cost

TINY = Layer("tiny", 4, 8, 8)
DEPTHWISE = Layer("depthwise", 4, 8, 8, kernel=3, depthwise=True)


class Calls:
    """Calls that move a clock of their own instead of taking time."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def clock(self):
        return self.now

    def call(self, name, *seconds):
        """A call whose runs take these seconds, the last of them ever after."""
        left = list(seconds)

        def run():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_what_is_far_slower_is_given_up():
    calls = Calls()
    kept, dropped = tune.give_up(
        {
            "choice": calls.call("choice", 0.010),
            "near": calls.call("near", 0.150),
            "faster": calls.call("faster", 0.004),
            "far": calls.call("far", 0.101),
            "slow": calls.call("slow", 6.0),
        },
        calls.clock,
    )
    assert list(kept) == ["choice", "near", "faster"]
    assert dropped == {"far": "one call took 101 ms", "slow": "one call took 6000 ms"}
    # Of what takes seconds, one call is enough.
    assert calls.log.count("slow") == 1
    assert calls.log.count("far") == 2


def test_a_slow_first_call_is_forgiven():
    calls = Calls()
    kept, dropped = tune.give_up(
        {"choice": calls.call("choice", 0.010), "other": calls.call("other", 0.900, 0.008)},
        calls.clock,
    )
    assert list(kept) == ["choice", "other"]
    assert not dropped


def test_the_choice_is_always_timed():
    calls = Calls()
    kept, _ = tune.give_up({"choice": calls.call("choice", 100.0)}, calls.clock)
    assert list(kept) == ["choice"]


def row(**seconds):
    return tune.Row("tiny", 1, 2, "forward", "float32", "pointwise", seconds, {})


def test_off_is_beyond_the_noise():
    assert row(pointwise=2.0, tiled=1.0).off
    assert row(pointwise=2.0, tiled=1.0).best == "tiled"
    assert row(pointwise=2.0, tiled=1.0).ratio == 2.0
    assert not row(pointwise=1.10, tiled=1.0).off
    assert not row(pointwise=1.0, tiled=2.0).off


@pytest.mark.parametrize(
    ("layer", "batch", "method", "direction", "want"),
    [
        (DEPTHWISE, 32, "reference", "gradients", True),
        (LAYERS["dense128"], 32, "reference", "gradients", True),
        (DEPTHWISE, 1, "mixture", "gradients", True),
        (DEPTHWISE, 32, "reference", "forward", False),
        (DEPTHWISE, 1, "reference", "gradients", False),
        (DEPTHWISE, 32, "depthwise", "gradients", False),
        (LAYERS["dense128"], 32, "mixture", "gradients", False),
        (TINY, 32, "reference", "gradients", False),
    ],
)
def test_calls_of_minutes_are_not_started(layer, batch, method, direction, want):
    assert (tune.hopeless(layer, batch, method, direction) is not None) is want


def test_elsewhere_than_on_a_cpu_everything_is_tried(monkeypatch):
    monkeypatch.setattr(tune.jax, "default_backend", lambda: "gpu")
    assert tune.hopeless(DEPTHWISE, 32, "reference", "gradients") is None


def test_programs_that_do_not_fit_are_not_started():
    program = types.SimpleNamespace(
        memory_analysis=lambda: types.SimpleNamespace(temp_size_in_bytes=3 * 2**30)
    )
    assert "needs 3.00 GiB" in tune.too_large(program, 5 * 2**30)
    assert tune.too_large(program, 8 * 2**30) is None
    assert tune.too_large(program, 0) is None
    assert tune.too_large(types.SimpleNamespace(memory_analysis=lambda: None), 1) is None


@pytest.mark.parametrize("direction", ["forward", "gradients"])
def test_a_row_accounts_for_every_method_that_can_run_the_layer(direction, monkeypatch):
    monkeypatch.setattr(tune, "give_up", lambda calls: (dict(calls), {}))
    measured = tune.tune_row(TINY, 2, 3, direction, jnp.float32, rounds=1)
    can = {name for name, m in ops.METHODS.items() if m.refusal(8, TINY.geometry()) is None}
    assert set(measured.seconds) == can
    assert measured.choice == tune.rule(TINY, 2, 4)
    assert measured.choice in measured.seconds
    assert measured.ratio >= 1


def test_a_row_says_what_was_skipped():
    measured = tune.tune_row(DEPTHWISE, 2, 3, "gradients", jnp.float32, rounds=1)
    assert "not started" in measured.skipped["reference"]
    assert "not started" in measured.skipped["mixture"]
    assert not set(measured.skipped) & set(measured.seconds)


def test_the_rule_is_the_one_that_auto_follows():
    """What is compared to the rest is what a user of "auto" gets."""
    x, experts, routing, _ = map(jnp.asarray, TINY.arrays(2, 3))
    names = {}
    for name in ("auto", tune.rule(TINY, 2, 4)):
        names[name] = str(tune.jax.make_jaxpr(TINY.op(name))(x, experts, routing))
    assert len(set(names.values())) == 1


@pytest.mark.parametrize("direction", ["forward", "gradients"])
def test_against_the_static_twin(direction):
    peaks = Peaks(matmul=1e9, read=1e9, fresh=1e9)
    found = against_static.compare(TINY, 2, 3, direction, jnp.bfloat16, peaks, rounds=1)
    assert found.dtype == "bfloat16"
    assert found.method == tune.rule(TINY, 2, 2)
    assert found.ratio == found.seconds / found.static_seconds
    assert found.fraction == found.bound.seconds / found.seconds
    # Of this pass and of two bytes for each value.
    wanted = cost(TINY, 2, 3, found.method, gradients=direction == "gradients", itemsize=2)
    assert (found.cost, found.bound) == (wanted, bound(wanted, peaks))


def test_a_time_is_that_of_one_call_and_the_median_of_all_rounds(monkeypatch):
    calls = Calls()
    # Pauses take time as well, which is nobody's.
    pause = calls.call("pause", 0.1)
    clock = types.SimpleNamespace(perf_counter=calls.clock, sleep=lambda seconds: pause())
    monkeypatch.setattr(timing, "time", clock)
    found = timing.interleave(
        {
            "short": calls.call("short", 0.002),
            # The first compiles, the second says how often to repeat; then there are three rounds.
            "uneven": calls.call("uneven", 5.0, 1.0, 0.5, 9.0, 0.75),
        },
        rounds=3,
        seconds=0.01,
    )
    assert found == {"short": pytest.approx(0.002), "uneven": pytest.approx(0.75)}
