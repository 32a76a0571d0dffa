"""One step of training: a pure function."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from condconv_jax.nn.variables import SCHEDULE
from condconv_jax.runtime.metrics import Sum
from condconv_jax.training.state import TrainState, update_averages
from condconv_jax.training.task import Task


def train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Mapping[str, Array],
    key: Array,
    *,
    micro_batches: int = 1,
    average_decay: float = 0.0,
) -> tuple[TrainState, dict[str, Sum]]:
    """Returns the state after one step and the step's metrics.

    Args:
      task: what to minimise.
      optimizer: how.
      state: before the step.
      batch: a global batch.
      key: of the run; the step's own is folded from it, so that a resumed run draws the same.
      micro_batches: parts of the batch whose gradients are computed one after another and
        averaged, which saves memory. Batch norm sees one part at a time.
      average_decay: of the moving averages, where the state has some.

    The metrics have the task's, and "gradient_norm", the global norm before clipping.

    Raises:
      ValueError: if the batch cannot be split into so many parts.
    """
    step_key = jax.random.fold_in(key, state.step)
    gradient, model_state, metrics = _gradient(task, state, batch, step_key, micro_batches)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    norm = Sum(optax.tree.norm(gradient), jnp.int32(1))
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        opt_state=opt_state,
    )
    state = state.replace(averages=update_averages(state.averages, state, average_decay))
    return state, {**metrics, "gradient_norm": norm}


def _gradient(
    task: Task, state: TrainState, batch: Mapping[str, Array], key: Array, micro_batches: int
) -> tuple[Any, Any, dict[str, Sum]]:
    """Gradient of the mean loss, the new model state and the metrics of a batch."""
    gradient_of = jax.grad(task.loss, has_aux=True)
    if micro_batches == 1:
        gradient, (model_state, metrics) = gradient_of(state.params, state.model_state, batch, key)
        return gradient, model_state, metrics

    size = len(jax.tree.leaves(batch)[0])
    if size % micro_batches:
        raise ValueError(
            f"train_step: {size} examples in {micro_batches} micro-batches; pass a divisor"
        )
    # Every n-th example: consecutive ones would lie on a few devices of a mesh only.
    parts = jax.tree.map(
        lambda x: x.reshape(size // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1),
        dict(batch),
    )

    def step(carry: tuple[Any, Any], inputs: tuple[Any, Array]) -> tuple[tuple[Any, Any], Any]:
        total, model_state = carry
        part, part_key = inputs
        # However many its parts, it is one step of a schedule.
        model_state = {**model_state, **counted}
        gradient, (model_state, metrics) = gradient_of(state.params, model_state, part, part_key)
        return (jax.tree.map(jnp.add, total, gradient), model_state), metrics

    counted = {k: v for k, v in state.model_state.items() if k == SCHEDULE}
    start = jax.tree.map(jnp.zeros_like, state.params), dict(state.model_state)
    keys = jax.random.split(key, micro_batches)
    (total, model_state), metrics = jax.lax.scan(step, start, (parts, keys))
    gradient = jax.tree.map(lambda leaf: leaf / micro_batches, total)
    return gradient, model_state, jax.tree.map(lambda values: values.sum(axis=0), metrics)
