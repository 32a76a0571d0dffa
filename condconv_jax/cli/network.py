"""A network and its weights, and the same network made ready to serve."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from condconv_jax import models
from condconv_jax.nn import compress_experts


@dataclasses.dataclass(frozen=True)
class BoundNetwork:
    """A network bound to its weights, as Flax calls it.

    Attributes:
      kind: "classification" or "detection".
      task: over the network.
      params: of it, JAX arrays.
      model_state: likewise.
    """

    kind: str
    task: Any
    params: Any
    model_state: Any

    @property
    def is_sparse(self) -> bool:
        """Whether some routing weights are left out."""
        return bool(self.task.model.conditional_layers() and self.task.model.routing.top_k)

    def with_method(self, method: str) -> "BoundNetwork":
        """Returns the same with its convolutions run in another way."""
        return self.with_model(self.task.model.clone(method=method))

    def in_float32(self) -> "BoundNetwork":
        """Returns the same computing in float32, whatever it was trained in."""
        return self.with_model(self.task.model.clone(dtype=jnp.float32))

    def folded(self) -> "BoundNetwork":
        """Returns the same with its batch norms folded, where the network has any to fold."""
        if not models.folds(self.task.model):
            return self
        variables = {"params": self.params, **self.model_state}
        return self.of(*models.fold_batch_norm(self.task.model, variables))

    def of(self, model: Any, variables: Mapping[str, Any]) -> "BoundNetwork":
        """Returns another network for the same task."""
        others = jax.device_put(dict(variables))
        params = others.pop("params")
        return dataclasses.replace(self.with_model(model), params=params, model_state=others)

    def compressed(self, experts: str) -> "BoundNetwork":
        """Returns the same with experts in "bfloat16" or "int8"; float32 leaves them."""
        if experts == "float32":
            return self
        return dataclasses.replace(self, params=compress_experts(self.params, experts))

    def with_model(self, model: Any) -> "BoundNetwork":
        """Returns the same weights in a network of other options."""
        return dataclasses.replace(self, task=dataclasses.replace(self.task, model=model))


def network_of(config: Mapping[str, Any], task: Any, state: Any) -> BoundNetwork:
    """Returns the network of a run, as it is evaluated.

    Args:
      config: of the run.
      task: over its network.
      state: a `training.TrainState`.
    """
    # `jnp.asarray` would compile a program for each shape, 3 s of EfficientNet-B0.
    params, model_state = jax.device_put(state.to_evaluate())
    return BoundNetwork(config["task"], task, params, dict(model_state))
