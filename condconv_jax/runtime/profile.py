"""A trace of some training steps, for TensorBoard's profiler, XProf or Perfetto."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

# Steps of a process that are let pass: the first compiles, the next ones fill the queues.
WARM_UP = 10


class StepProfiler:
    """Writes a trace of so many steps, once, after a few that are let pass.

    Every process of a run writes its own. `close` in the end writes what there is of a trace that
    the run was too short for.

    Args:
      directory: of the trace, made by the first step that is traced; each of several processes
        has a folder `process_<index>` in it, since files are named by the second and the host.
      steps: to trace; 0 for none.
      warm_up: steps let pass before.

    Attributes:
      started: whether a trace was begun.

    Raises:
      ValueError: if steps is negative.
    """

    def __init__(self, directory: str | Path, steps: int, *, warm_up: int = WARM_UP):
        if steps < 0:
            raise ValueError(f"StepProfiler: steps is {steps}; pass 0 (no trace) or more")
        self.directory = Path(directory)
        if jax.process_count() > 1:
            self.directory /= f"process_{jax.process_index()}"
        self._left = steps
        self._warm_up = warm_up
        self._tracing = False
        self.started = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Traces one step, of this number, if it is one of those to trace."""
        if self._left and not self._warm_up and not self._tracing:
            options = jax.profiler.ProfileOptions()
            # Python's own calls would be most of the trace, and of the time.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self.directory, profiler_options=options)
            self._tracing = self.started = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def after(self, results: Any) -> None:
        """Counts the step, and ends the trace after its last one.

        Args:
          results: of the step, which the last one waits for.
        """
        if not self._tracing:
            self._warm_up = max(0, self._warm_up - 1)
            return
        self._left -= 1
        if not self._left:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes the trace if one is being made."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing, self._left = False, 0
