"""One step of training: a pure function."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from condconv_jax.runtime.metrics import Sum
from condconv_jax.training.state import TrainState
from condconv_jax.training.task import Task


def train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Mapping[str, Array],
    key: Array,
) -> tuple[TrainState, dict[str, Sum]]:
    """Returns the state after one step and the step's metrics.

    Args:
      task: what to minimise.
      optimizer: how.
      state: before the step.
      batch: a global batch.
      key: of the run; the step's own is folded from it, so that a resumed run draws the same.

    The metrics have the task's, and "gradient_norm", the global norm before clipping.
    """
    step_key = jax.random.fold_in(key, state.step)
    gradient, (model_state, metrics) = jax.grad(task.loss, has_aux=True)(
        state.params, state.model_state, batch, step_key
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    norm = Sum(optax.tree.norm(gradient), jnp.int32(1))
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        opt_state=opt_state,
    )
    return state, {**metrics, "gradient_norm": norm}
