"""The training loop, top to bottom in the order it runs."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from condconv_jax.runtime.agreement import agreed
from condconv_jax.runtime.checkpoints import Checkpoints
from condconv_jax.runtime.json_lines import Kind
from condconv_jax.runtime.mesh import put_batch, replicated
from condconv_jax.runtime.profile import StepProfiler
from condconv_jax.runtime.writers import Writers
from condconv_jax.training.evaluation import Batch, evaluate, make_eval_fn, together
from condconv_jax.training.sharding import state_shardings
from condconv_jax.training.state import TrainState, init_state
from condconv_jax.training.step import train_step
from condconv_jax.training.task import Task
from condconv_jax.training.window import Window


class Batches(Protocol):
    """An iterator that reads ahead until it is closed."""

    def __next__(self) -> Mapping[str, Any]:
        """Returns the next batch."""
        ...

    def close(self) -> None:
        """Stops reading."""
        ...


class StoppedError(Exception):
    """The run was asked to stop; all that it did is saved.

    Attributes:
      step: that it is saved at.
    """

    def __init__(self, step: int):
        super().__init__(f"train: stopped at step {step}; call it again to go on from there")
        self.step = step


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
      micro_batches: parts of a batch whose gradients are computed one after another.
      average_decay: of the moving averages that are evaluated; 0 keeps none.
    """

    total_steps: int
    batch_size: int
    epoch_size: int
    log_every: int
    evaluate_every: float
    checkpoint_every: float
    micro_batches: int = 1
    average_decay: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "average_decay" and value < 1:
                raise ValueError(f"LoopSettings: {field.name} is {value}; pass at least 1")
        if not 0 <= self.average_decay < 1:
            raise ValueError(
                f"LoopSettings: average_decay is {self.average_decay}; pass 0 (none) to below 1"
            )


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
    stop: Callable[[], bool] = lambda: False,
    profiler: StepProfiler | None = None,
) -> TrainState:
    """Trains from the last checkpoint, or from the start, to the end; returns the last state.

    A run that was interrupted goes on exactly as if it had not been: the data is read from the
    sample after the checkpoint's, and the random keys depend on the step alone. A checkpoint made
    between two rows of the log has the sums of the row that is to come, and one without the scores
    it was to have gets them first.

    With several processes, what the data, the log or a save raise in one is raised in all, at the
    same step: where it did not happen as `runtime.OtherProcessError`, an OSError. They agree before
    each step and each batch of an evaluation, see `runtime.agreed`. What a device raises in one
    process alone ends the others as its death would.

    Args:
      task: loss and metrics.
      optimizer: of the parameters.
      train_batches: number of the first sample -> endless process-local batches from there;
        closed in the end.
      eval_batches: -> process-local batches of the whole evaluation set, padded and masked.
      settings: how long and how often.
      mesh: devices; batches are split over all of them, experts over its axis "expert".
      key: of the run.
      checkpoints: where states are kept.
      writers: where metrics go; already cut back to the checkpoint that is resumed from.
      learning_rate: of each step, for the log.
      start_from: changes the initial state, e.g. to take over weights. Not called on resuming.
      stop: -> whether to save and stop now, such as `StopRequests.reached`. Asked after each step
        and each batch of an evaluation, which is then left unfinished; in all processes alike.
      profiler: traces some steps.

    Raises:
      StoppedError: if asked to stop; the steps done are saved.
      NonFiniteLossError: naming the step; no state of that step or later is saved.
      ValueError, OSError: what the data raised; the steps done before it are saved first.
      OSError: what the log or a save raised, noticed at the next row of the log at the latest;
        nothing is saved after it.
    """
    key_init, key_train = jax.random.split(key)
    profiler = StepProfiler("", 0) if profiler is None else profiler
    averages = settings.average_decay > 0
    make = functools.partial(init_state, task, optimizer, averages=averages)
    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(make, key_init)
        placement = state_shardings(abstract, mesh)
        resumed = checkpoints.latest_step()
        if resumed is None:
            init = jax.jit(make, out_shardings=placement, compiler_options=_of_one_use(mesh))
            state = start_from(init(key_init))
            if averages:
                state = state.with_averages()
            state = jax.device_put(state, placement)
        else:
            abstract = jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=sharding
                ),
                abstract,
                placement,
            )
            state = checkpoints.restore(abstract, resumed)

        step_fn = jax.jit(
            functools.partial(
                train_step,
                task,
                optimizer,
                micro_batches=settings.micro_batches,
                average_decay=settings.average_decay,
            ),
            donate_argnames="state",
            out_shardings=(placement, replicated(mesh)),
        )
        eval_fn = make_eval_fn(task, mesh)
        first = int(state.step)
        window = Window(settings.batch_size)

        def write(step: int, scalars: Mapping[str, float], kind: Kind) -> None:
            def both() -> None:
                # Not as late as the next save, before which nothing would be kept.
                checkpoints.check()
                writers.write(step, scalars, kind)

            agreed(both)

        scores: dict[str, float] | None
        if resumed is not None:
            notes = checkpoints.notes(resumed)
            window.resume(notes.get("window", {}))
            if _evaluates(settings, first) and checkpoints.metrics(resumed) is None:
                batches = _until(stop, together(eval_batches))
                try:
                    scores = evaluate(task, eval_fn, state, batches, mesh)
                except _StopError:
                    raise StoppedError(first) from None
                write(first, scores, "eval")
                checkpoints.save(first, state, metrics=scores, notes=notes, replace=True)
                window.restart()
        if first >= settings.total_steps:
            checkpoints.wait()
            return state
        with (
            contextlib.closing(train_batches(first * settings.batch_size)) as local_batches,
            contextlib.closing(profiler),
        ):

            def next_batch() -> dict[str, Any]:
                with window.waiting():
                    local = next(local_batches)
                return put_batch(local, mesh)

            for step in range(first + 1, settings.total_steps + 1):
                try:
                    # Before the step is queued, which takes the state before it away.
                    batch = agreed(next_batch)
                except Exception:
                    if step - 1 > max(first, checkpoints.latest_step() or 0):
                        # Raises if those steps must not be saved.
                        checkpoints.save(step - 1, state, notes=window.notes())
                    raise
                with profiler.step(step):
                    state, metrics = step_fn(state, batch, key=key_train)
                profiler.after(metrics)
                # Metrics are read a step late, so that the device has the next step queued; but for
                # a row of the log, where this step's are read before there is a next one.
                window.add(step, metrics)
                evaluates = _evaluates(settings, step)
                saves = evaluates or _is_due(step, settings.checkpoint_every)
                if saves or step % settings.log_every == 0:
                    row = window.close()
                    row["epoch"] = step * settings.batch_size / settings.epoch_size
                    if learning_rate is not None:
                        row["learning_rate"] = float(learning_rate(step - 1))
                    write(step, row, "train")
                stopping = stop()
                scores = None
                if evaluates and not stopping:
                    batches = _until(stop, together(eval_batches))
                    try:
                        scores = evaluate(task, eval_fn, state, batches, mesh)
                    except _StopError:
                        stopping = True
                    except (ValueError, OSError):
                        checkpoints.save(step, state)
                        raise
                    else:
                        write(step, scores, "eval")
                if saves or stopping:
                    checkpoints.save(step, state, metrics=scores, notes=window.notes())
                    window.restart()
                if stopping:
                    checkpoints.wait()
                    raise StoppedError(step)
        checkpoints.wait()
    return state


class _StopError(Exception):
    """Ends an evaluation that is not to be finished."""


def _until(stop: Callable[[], bool], batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields the batches, unless asked to stop."""
    for batch in batches:
        if stop():
            raise _StopError
        yield batch


def _of_one_use(mesh: Mesh) -> dict[str, Any]:
    """Compiler options of a program that runs once.

    On a CPU XLA's highest level takes 19 s of a core to compile the initial state of MobileNetV1
    with experts, level 1 takes 7 s, and both draw the same bits.
    """
    less_already = jax.config.values["jax_disable_most_optimizations"]
    if mesh.devices.flat[0].platform != "cpu" or less_already:
        return {}
    return {"xla_backend_optimization_level": 1}


def _evaluates(settings: LoopSettings, step: int) -> bool:
    """Whether the state after a step is evaluated."""
    return step > 0 and (step == settings.total_steps or _is_due(step, settings.evaluate_every))


def _is_due(step: int, every: float) -> bool:
    """Whether a multiple of `every` lies in (step - 1, step]."""
    return math.floor(step / every) > math.floor((step - 1) / every)
