"""Where a run's scalars go: a metrics file, TensorBoard and the screen, joined as one writer.

A line of a step is written before that step is saved: a run resumes from a checkpoint and drops
what was written for later steps, and nothing repeats the step of the checkpoint itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from tensorboardX import SummaryWriter

from condconv_jax.runtime.json_lines import JsonLinesWriter, Kind
from condconv_jax.runtime.progress import ProgressWriter
from condconv_jax.runtime.workdir import WorkDir


class Writer(Protocol):
    """What `Writers` joins."""

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Writes scalars (name -> number) of a step."""

    def truncate_after(self, step: int) -> None:
        """Drops what was written for later steps; called before the first `write`."""

    def close(self) -> None:
        """Writes out what is pending."""


class TensorBoardWriter:
    """Writes scalars as TensorBoard events, tagged ``train/loss``, ``eval/top1``.

    Events are flushed with each evaluation and every `flush_seconds`; unlike the metrics file
    they may lack the last moments of a killed run.

    Args:
      directory: folder of the events, made at the first write.
      flush_seconds: seconds between flushes.
    """

    def __init__(self, directory: str | Path, *, flush_seconds: int = 30):
        self._directory = Path(directory)
        self._flush_seconds = flush_seconds
        self._purge_step: int | None = None
        self._writer: SummaryWriter | None = None

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Writes scalars of a step.

        Args:
          step: training steps done so far.
          scalars: numbers by name.
          kind: "train" or "eval"; part of the tag.
        """
        if self._writer is None:
            self._writer = SummaryWriter(
                str(self._directory),
                purge_step=self._purge_step,
                flush_secs=self._flush_seconds,
            )
        for name, value in scalars.items():
            # As numpy: tensorboardX knows neither JAX arrays nor bfloat16.
            self._writer.add_scalar(f"{kind}/{name}", np.float64(value), step)
        if kind == "eval":
            self._writer.flush()

    def truncate_after(self, step: int) -> None:
        """Makes TensorBoard hide the events of later steps from now on.

        Raises:
          ValueError: if something was written already.
        """
        if self._writer is not None:
            raise ValueError(
                "TensorBoardWriter: truncate_after after write; call it once, before writing"
            )
        self._purge_step = step + 1

    def close(self) -> None:
        """Flushes and closes."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Writers:
    """Several writers as one; in processes other than 0 it has none and does nothing.

    A context manager that closes them.

    Args:
      writers: given each call in this order.
    """

    def __init__(self, *writers: Writer):
        self._writers = writers if jax.process_index() == 0 else ()

    def __enter__(self) -> Writers:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the writers."""
        self.close()

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Writes scalars of a step to all; waits for the device where they are JAX arrays.

        Args:
          step: training steps done so far.
          scalars: numbers by name.
          kind: "train" or "eval".
        """
        if self._writers:
            scalars = jax.device_get(dict(scalars))
        for writer in self._writers:
            writer.write(step, scalars, kind)

    def truncate_after(self, step: int) -> None:
        """Drops what was written for steps after `step`."""
        for writer in self._writers:
            writer.truncate_after(step)

    def close(self) -> None:
        """Closes all."""
        for writer in self._writers:
            writer.close()


def make_writers(
    workdir: WorkDir,
    *,
    total_steps: int,
    batch_size: int,
    resume_step: int | None = None,
    progress: bool = True,
) -> Writers:
    """Returns the writers of a training run, cleared of what an earlier try wrote too far.

    Args:
      workdir: holds the metrics file and the TensorBoard events.
      total_steps: steps of the whole run.
      batch_size: images per step over all processes.
      resume_step: step of the checkpoint that the run goes on from; None if it starts anew.
      progress: whether to show progress on stderr.
    """
    if jax.process_index() != 0:
        return Writers()
    writers: list[Writer] = [
        JsonLinesWriter(workdir.metrics),
        TensorBoardWriter(workdir.tensorboard),
    ]
    if progress:
        writers.append(ProgressWriter(total_steps, batch_size, first_step=resume_step or 0))
    joined = Writers(*writers)
    # A run that died before its first checkpoint starts anew, with a step 0 of its own.
    joined.truncate_after(-1 if resume_step is None else resume_step)
    return joined
