"""What training carries from step to step."""

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
    """

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: optax.OptState


def init_state(task: Task, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    """Returns the state before the first step.

    Args:
      task: gives parameters and model state.
      optimizer: gives its own state.
      key: for the parameters.
    """
    params, model_state = task.init(key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=jax.jit(optimizer.init)(params),
    )
