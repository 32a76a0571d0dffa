"""Timing calls against each other: interleaved, so that a busy machine slows all alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    seconds: float = 0.01,
    pause: float = 0.03,
) -> dict[str, float]:
    """Returns the median time of each call, in seconds.

    Every round times every call once, in an order of its own. A call that is shorter than `seconds`
    is repeated until it lasts about that long, and is preceded by one untimed call: whatever ran
    before has filled the caches with its own data. The pause lets its threads go to sleep: those of
    OpenMP spin for milliseconds after their work, on the cores that the next call needs.

    Args:
      calls: by name; each blocks until its result is there (`ready`).
      rounds: timed rounds, after an untimed one that compiles.
      seconds: what one timing should last at least.
      pause: seconds of rest before each timing.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        time.sleep(pause)
        repeats[name] = max(1, min(1000, round(seconds / max(_elapsed(call, 1), 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    for number in range(rounds):
        # So that no call always meets what the same other one leaves behind.
        random.Random(number).shuffle(order)
        for name, call in order:
            time.sleep(pause)
            if repeats[name] > 1:
                call()
            times[name].append(_elapsed(call, repeats[name]))
    return {name: statistics.median(t) for name, t in times.items()}


def ready(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Returns a call of a JAX function that waits for its result."""
    return lambda: jax.block_until_ready(function(*arguments))


def _elapsed(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
