"""The checkpoints of a training run: saving in the background, and which ones to keep.

A thin module over Orbax v1; `restoring` says what a checkpoint is on disk and reads it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
from orbax.checkpoint import v1 as ocp

from condconv_jax.runtime import digests, restoring, salvage
from condconv_jax.runtime.agreement import agreed

# Of an array that several devices hold each may write a part, which is a program to compile for
# each shape and device: 13 s for 40 arrays on 8 devices, where writing them takes 0.1 s. Only
# parts of this size are worth it.
SMALLEST_PART = 2**22


class Checkpoints:
    """The checkpoints of one training run; a context manager that finishes saving on exit.

    Clears what a killed run left half written and sets damaged checkpoints aside, so only the
    process group that trains in the work directory (and holds its lock) may make one that writes;
    others pass `read_only`, or use `restoring`.

    Args:
      directory: the folder of the checkpoints, made if missing.
      keep_last: how many of the newest to keep, at least 1.
      keep_best: how many of the best by `best_metric` to keep besides; checkpoints saved without
        metrics are never among them.
      best_metric: name in the `metrics` given to `save`; the largest is best, NaN worst, and of
        equals the newest.
      read_only: whether to leave everything on disk as it is; then nothing can be saved.

    Attributes:
      damaged: a sentence for each checkpoint that was set aside on opening.

    Raises:
      ValueError: if keep_last or keep_best is none of the above.
      DamagedCheckpointError: if there are checkpoints and none of them can be used.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        best_metric: str = "top1",
        read_only: bool = False,
    ):
        if keep_last < 1 or keep_best < 0:
            raise ValueError(
                f"Checkpoints: keep_last is {keep_last}, keep_best {keep_best}; keep at least "
                "the last 1 to resume from, and 0 or more of the best"
            )
        self.directory = Path(directory).absolute()
        self._read_only = read_only
        self._keep_best = keep_best
        self._best_metric = best_metric
        self.damaged: list[str] = []
        self._checked: int | None = None
        if not read_only:
            self._checked, self.damaged = salvage.recover(self.directory)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._finishing: Future[None] | None = None
        self._raised = False
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep_last),
                    policies.BestN(
                        n=keep_best,
                        get_metric_fn=self._score,
                        # Or every checkpoint between two evaluations would stay for ever.
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=not read_only,
            context=_context(),
        )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes, see `close`."""
        self.close()

    def all_steps(self) -> list[int]:
        """Returns the saved steps in ascending order, after waiting for a save under way."""
        self.wait()
        return restoring.steps_in(self.directory)

    def latest_step(self) -> int | None:
        """Returns the newest saved step, None if there is none; waits for a save under way."""
        return max(self.all_steps(), default=None)

    def best_step(self) -> int | None:
        """Returns the kept step that is best by `best_metric`, None if none has that metric."""
        kept = set(self.all_steps())
        scores = [
            (self._score(item.metrics), item.step)
            for item in self._checkpointer.checkpoints
            if item.metrics and self._best_metric in item.metrics and item.step in kept
        ]
        return max(scores)[1] if scores else None

    def metrics(self, step: int) -> dict[str, float] | None:
        """Returns the metrics that a step was saved with, None if without."""
        self.wait()
        found = [item.metrics for item in self._checkpointer.checkpoints if item.step == step]
        return dict(found[0]) if found and found[0] else None

    def notes(self, step: int) -> dict[str, Any]:
        """Returns the notes that a step was saved with, empty if without."""
        self.wait()
        found = ocp.metadata(self.directory / str(step), checkpointable_name=restoring.STATE)
        return dict(found.custom_metadata or {})

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Saves in the background, after waiting for the previous save.

        The state's buffers may be donated as soon as this returns. An error of the background
        work is raised by whichever method is called next, in all processes; `check` asks for it.

        Args:
          step: later than every saved step.
          state: pytree of arrays.
          metrics: scalars by name, kept with the checkpoint and used to find the best.
          notes: what JSON can hold, kept with the checkpoint.
          replace: whether to save the newest step again, with metrics; killed meanwhile, the run
            still has the old one.

        Raises:
          ValueError: if the step is not later than the saved ones, metrics lacks best_metric, or
            this is read-only.
          OSError: if the disk is full; the checkpoints before are whole.
        """
        if self._read_only:
            raise ValueError(f"save: {self.directory} is open to read only; pass read_only=False")
        latest = self.latest_step()
        if latest is not None and step <= latest and not (replace and step == latest):
            raise ValueError(
                f"save: step {step} is not after {latest}, the newest checkpoint in "
                f"{self.directory}; resume from it, or use another work directory"
            )
        if metrics is not None:
            metrics = {name: float(value) for name, value in metrics.items()}
            if self._keep_best and self._best_metric not in metrics:
                raise ValueError(
                    f"save: metrics has {', '.join(sorted(metrics)) or 'nothing'}, not "
                    f"{self._best_metric!r}, which chooses the best checkpoint; add it, set "
                    "best_metric to one of these, or pass keep_best=0"
                )
        folder = self.directory / str(step)
        if replace:
            salvage.put_by(folder)
            self._checkpointer.reload()
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        with self._explained(needed):
            response = agreed(
                lambda: self._checkpointer.save_async(
                    step, state, metrics=metrics, custom_metadata=dict(notes or {}), force=True
                )
            )
        self._finishing = self._background.submit(self._finish, folder, response, needed)

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """Returns the state of a step, the newest if None; see `restoring.restore`."""
        latest = self.latest_step()
        step = latest if step is None else step
        # Opening has read every byte of it.
        checked = step is not None and step == self._checked
        return restoring.restore(self.directory, abstract_state, step, checked=checked)

    def wait(self) -> None:
        """Waits until the save under way is whole on disk; raises what went wrong with it.

        With several processes all of them call it, and it raises in all.
        """
        if self._finishing is None:
            self._wait()
        else:
            agreed(self._wait)

    def check(self) -> None:
        """Raises what went wrong with the save under way, if that is known; waits for nothing.

        Each process asks for itself: call it where they agree, see `agreed`.
        """
        if self._finishing is not None and self._finishing.done():
            self._finishing.result()

    def _wait(self) -> None:
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            try:
                finishing.result()
            except Exception:
                self._raised = True
                with self._raised_before():
                    self._checkpointer.wait()
                raise
        with self._raised_before():
            self._checkpointer.wait()

    def close(self) -> None:
        """Waits for the save under way and ends the background threads."""
        try:
            # Not for the other processes: this one may be leaving alone, with an error.
            self._wait()
        finally:
            self._background.shutdown()
            with self._raised_before():
                self._checkpointer.close()

    @contextlib.contextmanager
    def _raised_before(self) -> Iterator[None]:
        """Leaves out Orbax's own copies of an error that was raised, with our explanation."""
        try:
            yield
        except Exception:
            if not self._raised:
                raise

    def _finish(self, folder: Path, response: Any, needed: int) -> None:
        """Waits for Orbax, then adds the digests of what it wrote."""
        with self._explained(needed):
            response.result()
            if jax.process_index() == 0:
                digests.write(folder)
                salvage.drop(folder)

    @contextlib.contextmanager
    def _explained(self, needed: int) -> Iterator[None]:
        """Says of an error that is due to a full disk what is needed and what is free."""
        try:
            yield
        except Exception as error:
            text = str(error)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            # TensorStore raises a ValueError with the text of the error number.
            if not full and os.strerror(errno.ENOSPC) not in text:
                raise
            free = shutil.disk_usage(self.directory).free
            raise OSError(
                f"save: {os.strerror(errno.ENOSPC)}, {self.directory}: a checkpoint takes up to "
                f"{needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; free some and start the "
                "same command again, which goes on from the last checkpoint"
            ) from error

    def _score(self, metrics: Mapping[str, float]) -> float:
        value = metrics.get(self._best_metric, math.nan)
        return -math.inf if math.isnan(value) else value


def _context() -> ocp.Context:
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = SMALLEST_PART
    return context
