"""What training carries from step to step."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from condconv_jax.training.task import Task


class TrainState(flax.struct.PyTreeNode):
    """Everything that a checkpoint holds.

    The position in the data is step * batch size and the random keys are folded from the step,
    so neither is stored.

    Attributes:
      step: () int32, optimiser steps done.
      params: parameters, float32.
      model_state: batch norm statistics and other collections that are not trained.
      opt_state: the optimiser's.
      averages: {"params": ..., "model_state": ...}, the moving averages of both; {} where none are
        kept.
    """

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: optax.OptState
    averages: Any = flax.struct.field(default_factory=dict)

    def to_evaluate(self) -> tuple[Any, Any]:
        """Returns parameters and model state to evaluate: their averages where they are kept."""
        return weights_of(vars(self))

    def with_averages(self) -> "TrainState":
        """Returns the state with moving averages that start from its values."""
        start = {"params": self.params, "model_state": self.model_state}
        return self.replace(averages=_copied(start))


@jax.jit
def _copied(tree: Any) -> Any:
    """Copies: a step is given the memory of its state, each array once."""
    return jax.tree.map(jnp.copy, tree)


# Of a saved state, what `weights_of` needs.
WEIGHTS = ("params", "model_state", "averages")


def weights_of(saved: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns parameters and model state of a saved state: their averages where it has some.

    Args:
      saved: `WEIGHTS` by name.
    """
    kept = saved["averages"] or saved
    return kept["params"], kept["model_state"]


def init_state(
    task: Task, optimizer: optax.GradientTransformation, key: Array, *, averages: bool = False
) -> TrainState:
    """Returns the state before the first step.

    Args:
      task: gives parameters and model state.
      optimizer: gives its own state.
      key: for the parameters.
      averages: whether to keep moving averages, which start at the first values.
    """
    params, model_state = task.init(key)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=jax.jit(optimizer.init)(params),
    )
    return state.with_averages() if averages else state


def update_averages(averages: Any, state: TrainState, decay: float) -> Any:
    """Returns the moving averages after a step; {} of none.

    average <- d * average + (1 - d) * value,  d = min(decay, (1 + step) / (10 + step))

    so that the first values, which say nothing, are soon forgotten. Batch norm's statistics are
    averaged too, counters are not.

    Args:
      averages: before the step.
      state: after the step, with its `step` counted.
      decay: of the averages.

    Source: tensorflow/tpu, models/official/efficientnet/main.py and utils.py (get_ema_vars), whose
      tf.train.ExponentialMovingAverage has `num_updates`.
    """
    if not averages:
        return averages
    step = state.step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + step) / (10 + step))

    def moved(average: Array, value: Array) -> Array:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        return average + ((1 - kept) * (value - average)).astype(average.dtype)

    return jax.tree.map(moved, averages, {"params": state.params, "model_state": state.model_state})
