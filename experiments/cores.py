"""The CPU cores of runs that train side by side: each has its own.

XLA starts as many threads as a process may use cores. Two trainings on two cores did 7 images/s
each when both could use both, since their threads then wait for one another's, and 10 each with a
core of their own.
"""

import contextlib
import os
from collections.abc import Collection, Iterator


def available_cores() -> frozenset[int]:
    """Returns the cores that this process may use; none where the system is not Linux."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def split_cores(cores: Collection[int], parts: int) -> list[frozenset[int]]:
    """Returns the cores of each part: neighbours, in sets as equal as can be.

    Args:
      cores: numbers of cores.
      parts: how many sets; if there are fewer cores, several parts have the same one.
    """
    ordered, n = sorted(cores), len(cores)
    if n < parts:
        return [frozenset(ordered[i % n : i % n + 1] if n else ()) for i in range(parts)]
    return [frozenset(ordered[i * n // parts : (i + 1) * n // parts]) for i in range(parts)]


@contextlib.contextmanager
def started_on(cores: Collection[int]) -> Iterator[None]:
    """Processes started within use these cores alone, and so do theirs; any, if there are none."""
    if not cores:
        yield
        return
    # A child has the cores of the thread that starts it from its first instruction on: set from
    # outside, they could come after its own children.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
