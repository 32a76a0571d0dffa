"""The metrics of the steps between two rows of the log."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from condconv_jax.runtime import metrics as sums


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became infinite or NaN."""


class Window:
    """The metrics of the steps since the last row, and the time they took."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._total: dict[str, sums.Sum] = {}
        self._steps = 0
        self._pending: tuple[int, dict[str, sums.Sum]] | None = None
        self._waited = 0.0  # seconds, for input
        self._before = 0.0  # seconds spent on the window by the run that this one goes on from
        self._started = time.perf_counter()

    def resume(self, notes: Mapping[str, Any]) -> None:
        """Goes on with the window of an earlier run, from its "window" in `notes`."""
        for name, (total, count) in notes.get("sums", {}).items():
            self._total[name] = sums.Sum(np.float64(total), np.int64(count))
        self._steps = notes.get("steps", 0)
        self._waited = notes.get("waited", 0.0)
        self._before = notes.get("seconds", 0.0)

    def notes(self) -> dict[str, Any]:
        """Returns {"window": what there is so far}, for JSON; {} of a window that has only begun.

        Waits for the last step, and raises if it must not be saved.
        """
        self._read()
        if not self._steps:
            return {}
        found = {name: (float(item.total), int(item.count)) for name, item in self._total.items()}
        return {
            "window": {
                "sums": found,
                "steps": self._steps,
                "seconds": self._seconds(),
                "waited": self._waited,
            }
        }

    def _seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as spent waiting for input."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def add(self, step: int, metrics: dict[str, sums.Sum]) -> None:
        """Takes a step's metrics and reads those of the step before."""
        self._read()
        self._pending = (step, metrics)

    def close(self) -> dict[str, float]:
        """Returns the means of the window, which ends; waits for its last step.

        "input_wait" is the share of "seconds" that this process stood waiting for a batch.
        """
        self._read()
        seconds = self._seconds()
        row = {
            **sums.compute(self._total),
            "images_per_second": self._steps * self._batch_size / seconds,
            "seconds": seconds,
            "input_wait": self._waited / seconds,
        }
        self._total, self._steps, self._before, self._waited = {}, 0, 0.0, 0.0
        self.restart()
        return row

    def restart(self) -> None:
        """Starts the clock again, after time that was not spent on training."""
        self._started = time.perf_counter()

    def _read(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = sums.fetch(metrics)
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(values[name].total):
                raise NonFiniteLossError(
                    f"train: the {name.replace('_', ' ')} is {values[name].total} at step {step}; "
                    "the last checkpoint is from before it. Lower the learning rate, lengthen the "
                    "warm-up or set optimizer.clip_norm"
                )
        self._total = sums.add(self._total, values)
        self._steps += 1
