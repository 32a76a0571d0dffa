"""A network's first variables, and their shapes, traced once for all who ask."""

import functools
from collections.abc import Hashable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Collection of counters of training steps, such as annealing goes by; part of a model's state.
SCHEDULE = "schedule"


def init_variables(model: nn.Module, key: Array, images: Float[Array, "b h w c"]) -> Any:
    """Returns `model.init(key, images)`.

    Init runs the network for the shapes of its layers, and tracing that takes tenths of a second.
    Equal networks and shapes share a trace; a network with a field that has no hash has its own
    each time.

    Args:
      model: takes images alone.
      key: random key.
      images: whose values do not matter.
    """
    if _has_hash(model):
        return _init(model, key, images)
    return model.init(key, images)


def variable_shapes(model: nn.Module, size: int | Sequence[int], channels: int = 3) -> Any:
    """Returns the shape and dtype of each of a network's variables, as `jax.eval_shape` does.

    Args:
      model: takes images alone.
      size: of the images: height and width, or one number for both.
      channels: of the images.
    """
    height, width = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    return jax.eval_shape(functools.partial(init_variables, model), jax.random.key(0), images)


@functools.partial(jax.jit, static_argnums=0)
def _init(model: nn.Module, key: Array, images: Float[Array, "b h w c"]) -> Any:
    return model.init(key, images)


def _has_hash(model: Hashable) -> bool:
    try:
        hash(model)
    except TypeError:
        return False
    return True
