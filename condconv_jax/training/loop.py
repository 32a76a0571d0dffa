"""The training loop, top to bottom in the order it runs."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from condconv_jax.runtime import metrics as sums
from condconv_jax.runtime.checkpoints import Checkpoints
from condconv_jax.runtime.mesh import put_batch, replicated
from condconv_jax.runtime.writers import Writers
from condconv_jax.training.state import TrainState, init_state
from condconv_jax.training.step import train_step
from condconv_jax.training.task import Task

Batch = Mapping[str, np.ndarray]


class Batches(Protocol):
    """An iterator that reads ahead until it is closed."""

    def __next__(self) -> Batch:
        """Returns the next batch."""
        ...

    def close(self) -> None:
        """Stops reading."""
        ...


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became infinite or NaN."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long to train and how often to look.

    Attributes:
      total_steps: optimiser steps of the whole run.
      batch_size: global, in examples.
      epoch_size: examples of one epoch, for the logs.
      log_every: steps between rows of training metrics.
      evaluate_every: steps between evaluations, on average: an epoch need not be a whole number
        of steps. The last step is always evaluated.
      checkpoint_every: steps between checkpoints, on average; there is always one of every
        evaluated step, so that its metrics can choose the best.
    """

    total_steps: int
    batch_size: int
    epoch_size: int
    log_every: int
    evaluate_every: float
    checkpoint_every: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"LoopSettings: {field.name} is {value}; pass at least 1")


def train(
    task: Task,
    optimizer: optax.GradientTransformation,
    train_batches: Callable[[int], Batches],
    eval_batches: Callable[[], Iterable[Batch]],
    *,
    settings: LoopSettings,
    mesh: Mesh,
    key: Array,
    checkpoints: Checkpoints,
    writers: Writers,
    learning_rate: optax.Schedule | None = None,
    start_from: Callable[[TrainState], TrainState] = lambda state: state,
) -> TrainState:
    """Trains from the last checkpoint, or from the start, to the end; returns the last state.

    A run that was interrupted goes on exactly as if it had not been: the data is read from the
    sample after the checkpoint's, and the random keys depend on the step alone.

    Args:
      task: loss and metrics.
      optimizer: of the parameters.
      train_batches: number of the first sample -> endless process-local batches from there;
        closed in the end.
      eval_batches: -> process-local batches of the whole evaluation set, padded and masked.
      settings: how long and how often.
      mesh: devices; batches are split over its "data" axis.
      key: of the run.
      checkpoints: where states are kept.
      writers: where metrics go; already cut back to the checkpoint that is resumed from.
      learning_rate: of each step, for the log.
      start_from: changes the initial state, e.g. to take over weights. Not called on resuming.

    Raises:
      NonFiniteLossError: naming the step; no state of that step or later is saved.
      ValueError, OSError: what the data raised; the steps done before it are saved first.
    """
    key_init, key_train = jax.random.split(key)
    whole = replicated(mesh)
    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(functools.partial(init_state, task, optimizer), key_init)
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), abstract
        )
        resumed = checkpoints.latest_step()
        if resumed is None:
            make = jax.jit(functools.partial(init_state, task, optimizer), out_shardings=whole)
            state = jax.device_put(start_from(make(key_init)), whole)
        else:
            state = checkpoints.restore(abstract, resumed)

        step_fn = jax.jit(
            functools.partial(train_step, task, optimizer),
            donate_argnames="state",
            out_shardings=whole,
        )
        eval_fn = make_eval_fn(task, mesh)
        first = int(state.step)
        if first >= settings.total_steps:
            return state
        window = _Window(settings.batch_size)
        with contextlib.closing(train_batches(first * settings.batch_size)) as batches:
            for step in range(first + 1, settings.total_steps + 1):
                try:
                    batch = put_batch(next(batches), mesh)
                except (ValueError, OSError):
                    if step - 1 > max(first, checkpoints.latest_step() or 0):
                        window.close()  # raises if those steps must not be saved
                        checkpoints.save(step - 1, state)
                    raise
                state, metrics = step_fn(state, batch, key=key_train)
                # Metrics are read a step late, so that the device always has the next step queued.
                window.add(step, metrics)
                last = step == settings.total_steps
                evaluates = last or _is_due(step, settings.evaluate_every)
                saves = evaluates or _is_due(step, settings.checkpoint_every)
                if saves or step % settings.log_every == 0:
                    row = window.close()
                    row["epoch"] = step * settings.batch_size / settings.epoch_size
                    if learning_rate is not None:
                        row["learning_rate"] = float(learning_rate(step - 1))
                    writers.write(step, row, kind="train")
                scores = None
                if evaluates:
                    try:
                        scores = evaluate(eval_fn, state, eval_batches(), mesh)
                    except (ValueError, OSError):
                        checkpoints.save(step, state)
                        raise
                    writers.write(step, scores, kind="eval")
                if saves:
                    checkpoints.save(step, state, metrics=scores)
                    window.restart()
        checkpoints.wait()
    return state


def _is_due(step: int, every: float) -> bool:
    """Whether a multiple of `every` lies in (step - 1, step]."""
    return math.floor(step / every) > math.floor((step - 1) / every)


EvalFn = Callable[[Any, Any, Mapping[str, Array]], dict[str, sums.Sum]]


def make_eval_fn(task: Task, mesh: Mesh) -> EvalFn:
    """Returns the compiled evaluation of one global batch, its sums on every device."""
    return jax.jit(task.evaluate, out_shardings=replicated(mesh))


def evaluate(
    eval_fn: EvalFn, state: TrainState, batches: Iterable[Batch], mesh: Mesh
) -> dict[str, float]:
    """Returns the mean of each metric over a whole set, each example counted once.

    Args:
      eval_fn: from `make_eval_fn`.
      state: parameters and model state.
      batches: process-local batches, padded and masked.
      mesh: as of the state.

    Raises:
      NonFiniteLossError: if the loss is not finite.
    """
    total: dict[str, sums.Sum] = {}
    pending = None
    for batch in batches:
        computed = eval_fn(state.params, state.model_state, put_batch(batch, mesh))
        if pending is not None:
            total = sums.add(total, sums.fetch(pending))
        pending = computed
    if pending is not None:
        total = sums.add(total, sums.fetch(pending))
    means = sums.compute(total)
    if not math.isfinite(means["loss"]):
        raise NonFiniteLossError(
            f"evaluate: the loss is {means['loss']} after step {int(state.step)}; lower the "
            "learning rate, lengthen the warm-up or set optimizer.clip_norm"
        )
    return {**means, "examples": float(total["loss"].count)}


class _Window:
    """The metrics of the steps since the last row, and the time they took."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._total: dict[str, sums.Sum] = {}
        self._steps = 0
        self._pending: tuple[int, dict[str, sums.Sum]] | None = None
        self._started = time.perf_counter()

    def add(self, step: int, metrics: dict[str, sums.Sum]) -> None:
        """Takes a step's metrics and reads those of the step before."""
        self._read()
        self._pending = (step, metrics)

    def close(self) -> dict[str, float]:
        """Returns the means of the window, which ends; waits for its last step."""
        self._read()
        seconds = time.perf_counter() - self._started
        row = {
            **sums.compute(self._total),
            "images_per_second": self._steps * self._batch_size / seconds,
            "seconds": seconds,
        }
        self._total, self._steps = {}, 0
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
