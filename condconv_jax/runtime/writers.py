"""Where a run's scalars go: a metrics file, TensorBoard and the screen, joined as one writer.

A line of a step is written before that step is saved: a run resumes from a checkpoint and drops
what was written for later steps, and nothing repeats the step of the checkpoint itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar as scalar_summary

from condconv_jax.runtime.json_lines import JsonLinesWriter, Kind
from condconv_jax.runtime.progress import ProgressWriter
from condconv_jax.runtime.workdir import WorkDir


class Writer(Protocol):
    """What `Writers` joins."""

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Writes scalars (name -> number) of a step."""

    def truncate_after(self, step: int, *, evaluated: bool = True) -> None:
        """Drops what was written for later steps; called before the first `write`.

        Where the step is not `evaluated` yet, drops what was written of its evaluation too.
        """

    def close(self) -> None:
        """Writes out what is pending."""


class TensorBoardWriter:
    """Writes scalars as TensorBoard events, tagged ``train/loss``, ``eval/top1``.

    Events are flushed with each evaluation and every `flush_seconds`; unlike the metrics file
    they may lack the last moments of a killed run. In the caller's thread: tensorboardX's own
    `SummaryWriter` has one that dies of a full disk, after which the next writes wait for ever.

    Args:
      directory: folder of the events, made at the first write.
      flush_seconds: seconds between flushes.
    """

    def __init__(self, directory: str | Path, *, flush_seconds: int = 30):
        self._directory = Path(directory)
        self._flush_seconds = flush_seconds
        self._flushed = time.monotonic()
        self._purge_step: int | None = None
        self._events: EventsWriter | None = None

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Writes scalars of a step.

        Args:
          step: training steps done so far.
          scalars: numbers by name.
          kind: "train" or "eval"; part of the tag.

        Raises:
          OSError: if they cannot be written, as on a full disk; names the folder.
        """
        # As numpy: tensorboardX knows neither JAX arrays nor bfloat16.
        values = {f"{kind}/{name}": np.float64(value) for name, value in scalars.items()}
        with self._named():
            events = self._open()
            for tag, value in values.items():
                summary = scalar_summary(tag, value)
                events.write_event(Event(step=step, wall_time=time.time(), summary=summary))
            if kind == "eval" or time.monotonic() - self._flushed >= self._flush_seconds:
                events.flush()
                self._flushed = time.monotonic()

    def truncate_after(self, step: int, *, evaluated: bool = True) -> None:
        """Makes TensorBoard hide the events of later steps from now on.

        A second evaluation of the same step is the same point.

        Raises:
          ValueError: if something was written already.
        """
        if self._events is not None:
            raise ValueError(
                "TensorBoardWriter: truncate_after after write; call it once, before writing"
            )
        self._purge_step = step + 1

    def close(self) -> None:
        """Flushes and closes."""
        events, self._events = self._events, None
        if events is not None:
            with self._named():
                events.close()

    def _open(self) -> EventsWriter:
        if self._events is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            # With the process: file names count whole seconds, and a restart may take less.
            self._events = EventsWriter(str(self._directory / "events"), f".{os.getpid()}")
            if self._purge_step is not None:
                log = SessionLog(status=SessionLog.START)
                start = Event(step=self._purge_step, wall_time=time.time(), session_log=log)
                self._events.write_event(start)
        return self._events

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._events = None
            raise OSError(
                f"TensorBoardWriter: {error.strerror}, {self._directory}: once there is room, the "
                "same command goes on from the last checkpoint"
            ) from error


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

    def truncate_after(self, step: int, *, evaluated: bool = True) -> None:
        """Drops what was written for steps after `step`, and of its evaluation if not done."""
        for writer in self._writers:
            writer.truncate_after(step, evaluated=evaluated)

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
    evaluated: bool = True,
) -> Writers:
    """Returns the writers of a training run, cleared of what an earlier try wrote too far.

    Args:
      workdir: holds the metrics file and the TensorBoard events.
      total_steps: steps of the whole run.
      batch_size: images per step over all processes.
      resume_step: step of the checkpoint that the run goes on from; None if it starts anew.
      evaluated: whether that checkpoint has its scores, if it is to have any.
    """
    if jax.process_index() != 0:
        return Writers()
    joined = Writers(
        JsonLinesWriter(workdir.metrics),
        TensorBoardWriter(workdir.tensorboard),
        ProgressWriter(total_steps, batch_size, first_step=resume_step or 0),
    )
    # A run that died before its first checkpoint starts anew, with a step 0 of its own.
    joined.truncate_after(-1 if resume_step is None else resume_step, evaluated=evaluated)
    return joined
