"""The evaluation of a whole set, over a mesh."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from condconv_jax.runtime import metrics as sums
from condconv_jax.runtime.agreement import agreed
from condconv_jax.runtime.mesh import put_batch, replicated
from condconv_jax.training.state import TrainState
from condconv_jax.training.task import Task
from condconv_jax.training.window import NonFiniteLossError

Batch = Mapping[str, np.ndarray]
EvalFn = Callable[[Any, Any, Mapping[str, Array]], sums.Evaluation]


def together(batches: Callable[[], Iterable[Batch]]) -> Iterator[Batch]:
    """Yields process-local batches, each once every process has its own.

    Args:
      batches: -> as many in every process.

    Raises:
      Exception: what they raise in one process, or `OtherProcessError`; in all.
    """
    iterator = agreed(lambda: iter(batches()))
    while (batch := agreed(lambda: next(iterator, None))) is not None:
        yield batch


def make_eval_fn(task: Task, mesh: Mesh) -> EvalFn:
    """Returns the compiled evaluation of one global batch, its results on every device."""
    return jax.jit(task.evaluate, out_shardings=replicated(mesh))


def evaluate(
    task: Task, eval_fn: EvalFn, state: TrainState, batches: Iterable[Batch], mesh: Mesh
) -> dict[str, float]:
    """Returns the metrics of a whole set, each example counted once.

    Args:
      task: that is evaluated.
      eval_fn: of the task, from `make_eval_fn`.
      state: its moving averages are evaluated where it has some.
      batches: process-local batches, padded and masked.
      mesh: as of the state.

    Raises:
      NonFiniteLossError: if the loss is not finite.
    """
    params, model_state = state.to_evaluate()
    total: dict[str, sums.Sum] = {}
    examples: list[Mapping[str, np.ndarray]] = []

    def read(computed: sums.Evaluation | None) -> None:
        nonlocal total
        if computed is not None:
            total = sums.add(total, sums.fetch(computed.sums))
            examples.append(jax.device_get(computed.examples))

    pending = None
    for batch in batches:
        computed = eval_fn(params, model_state, put_batch(batch, mesh))
        read(pending)
        pending = computed
    read(pending)
    means = sums.compute(total)
    if not math.isfinite(means["loss"]):
        raise NonFiniteLossError(
            f"evaluate: the loss is {means['loss']} after step {int(state.step)}; lower the "
            "learning rate, lengthen the warm-up or set optimizer.clip_norm"
        )
    joined = {name: np.concatenate([one[name] for one in examples]) for name in examples[0]}
    return {**means, **task.scores(joined), "examples": float(total["loss"].count)}
