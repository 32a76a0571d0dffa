"""What the loop knows of a task."""

from collections.abc import Mapping
from typing import Any, Protocol

from jaxtyping import Array, Float

from condconv_jax.runtime.metrics import Sum


class Task(Protocol):
    """A loss and metrics over a network; hashable, all its methods pure."""

    def init(self, key: Array) -> tuple[Any, Any]:
        """Returns parameters and model state (batch norm statistics and the like)."""
        ...

    def loss(
        self, params: Any, model_state: Any, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Sum]]]:
        """Returns the mean loss of a global batch, the new model state and metrics."""
        ...

    def evaluate(self, params: Any, model_state: Any, batch: Mapping[str, Array]) -> dict[str, Sum]:
        """Returns metrics of a global batch whose padding is masked out."""
        ...
