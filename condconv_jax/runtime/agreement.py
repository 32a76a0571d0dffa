"""What can go wrong in one process of several, such as reading a file, goes wrong in all.

A process that leaves alone is waited for by the others, in the next computation or checkpoint that
needs it, until JAX takes it for dead.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax._src import distributed  # JAX has no public way to its coordination service

T = TypeVar("T")

_CALLS = itertools.count()
# In milliseconds. A day: one process may read slowly, and JAX itself ends the wait for a dead one.
_PATIENCE = 24 * 3600 * 1000


class OtherProcessError(OSError):
    """Something went wrong in another process of this run."""


def agreed(work: Callable[[], T]) -> T:
    """Returns what the work returns, once it is done in every process; raises in all or in none.

    The processes talk to JAX's coordination service in process 0, not by their devices, whose
    queues stay as they are: two requests, 2-5 ms for two processes on two busy cores. All of them
    make the same calls in the same order. In one process it does the work and nothing else.

    Args:
      work: of this process alone; waits for no other one.

    Raises:
      Exception: of the work, in a process where it failed.
      OtherProcessError: where it did not, but did in another; names that one and its error.
    """
    if jax.process_count() == 1:
        return work()
    client: Any = distributed.global_state.client
    # Of this call: the next one may have failed in another process before this one looks.
    folder = f"condconv_jax/failed/{next(_CALLS)}/"
    error = None
    try:
        result = work()
    except Exception as raised:
        error = raised
        client.key_value_set(f"{folder}{jax.process_index()}", str(raised) or type(raised).__name__)
    client.wait_at_barrier("condconv_jax/agreed", _PATIENCE)
    failures = client.key_value_dir_get(folder)
    if error is not None:
        raise error
    if failures:
        name, text = min(failures)
        raise OtherProcessError(f"process {name.removeprefix(folder)} failed: {text}")
    return result
