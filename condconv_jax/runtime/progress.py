"""Progress of training for whoever watches: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tqdm import tqdm

from condconv_jax.runtime.json_lines import Kind


class ProgressWriter:
    """Shows steps done, loss, images/s and the time left.

    On a terminal a tqdm bar; elsewhere a line for the first step, then one per
    `seconds_between_lines`, and one for the last step. Evaluations are always shown. Speed is
    that since the previous call for training steps, evaluation left out; none is shown before
    the second, as the first step compiles.

    Args:
      total_steps: steps of the whole run.
      batch_size: images per step over all processes.
      first_step: steps done before this process started, from a checkpoint.
      file: where to; None for stderr.
      seconds_between_lines: for plain lines.
      clock: seconds, for tests.
    """

    def __init__(
        self,
        total_steps: int,
        batch_size: int,
        *,
        first_step: int = 0,
        file: TextIO | None = None,
        seconds_between_lines: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total = total_steps
        self._batch_size = batch_size
        self._file = sys.stderr if file is None else file
        self._seconds_between_lines = seconds_between_lines
        self._clock = clock
        self._bar: tqdm | None = None
        if self._file.isatty():
            self._bar = tqdm(
                total=total_steps,
                initial=first_step,
                file=self._file,
                unit="step",
                dynamic_ncols=True,
                # Speed and time left are ours: tqdm's would count evaluations as slow steps.
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            )
        self._step = first_step
        self._timed_from: float | None = None  # when `_step` was reached
        self._last_line: float | None = None

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Shows scalars of a step; of training, only ``loss`` and what was measured here.

        Args:
          step: training steps done so far.
          scalars: numbers by name.
          kind: "train" or "eval".
        """
        if kind == "eval":
            # Without those of single classes, "ap/NAME", which may be a hundred.
            numbers = ((name, float(v)) for name, v in scalars.items() if "/" not in name)
            values = "  ".join(
                f"{name} {value:.0f}" if name == "examples" else f"{name} {value:.4f}"
                for name, value in numbers
            )
            self._print(f"{self._position(step)}  eval  {values}")
            # The clock starts again; the time of the evaluation belongs to no step.
            self._timed_from = self._clock() if step == self._step else None
            return
        now = self._clock()
        speed = self._speed(step, now)
        self._step, self._timed_from = step, now
        parts = [f"loss {float(scalars['loss']):.4f}"] if "loss" in scalars else []
        if speed is not None:
            left = tqdm.format_interval(max(self._total - step, 0) / speed)
            parts.append(f"{speed * self._batch_size:,.0f} images/s")
            if "input_wait" in scalars:
                parts.append(f"{100 * float(scalars['input_wait']):.1f} % waiting for input")
            parts.append(f"{left} left")
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(parts), refresh=False)
            self._bar.update(step - self._bar.n)
        elif (
            self._last_line is None
            or now - self._last_line >= self._seconds_between_lines
            or step >= self._total
        ):
            self._last_line = now
            self._print("  ".join([self._position(step), *parts]))

    def truncate_after(self, step: int, *, evaluated: bool = True) -> None:
        """Does nothing: what was shown stays."""

    def close(self) -> None:
        """Leaves the finished bar on the terminal."""
        if self._bar is not None:
            self._bar.close()

    def _speed(self, step: int, now: float) -> float | None:
        """Returns steps per second since the previous call, None where that means nothing."""
        if self._timed_from is None or step <= self._step or now <= self._timed_from:
            return None
        return (step - self._step) / (now - self._timed_from)

    def _position(self, step: int) -> str:
        return f"step {step}/{self._total} ({100 * step / max(self._total, 1):.1f}%)"

    def _print(self, line: str) -> None:
        # Above the bar, where there is one.
        tqdm.write(line, file=self._file)
        self._file.flush()
