"""What the loop knows of a task."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Float

from condconv_jax.runtime.metrics import Evaluation, Sum


class Task(Protocol):
    """A loss and metrics over a network; hashable, all its methods pure.

    Attributes:
      best_metric: by which the best checkpoint is chosen, the larger the better.
    """

    @property
    def best_metric(self) -> str:
        """Name of a metric of the evaluation."""
        ...

    def init(self, key: Array) -> tuple[Any, Any]:
        """Returns parameters and model state (batch norm statistics and the like)."""
        ...

    def loss(
        self, params: Any, model_state: Any, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Sum]]]:
        """Returns the mean loss of a global batch, the new model state and metrics."""
        ...

    def evaluate(self, params: Any, model_state: Any, batch: Mapping[str, Array]) -> Evaluation:
        """Returns metrics of a global batch whose padding is masked out.

        Among the sums is "loss", which counts each example once.
        """
        ...

    def scores(self, examples: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the metrics of a whole set that are no means over its examples.

        Args:
          examples: those of all batches, one after another.
        """
        ...
