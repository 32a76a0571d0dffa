"""A predictor from the work directory of a run."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from condconv_jax import config as configs
from condconv_jax.cli.predicting.predictor import Kind, Results, softmax
from condconv_jax.cli.trained import Predictor, load_predictor


class WorkdirPredictor:
    """A trained network as a `PicturePredictor`.

    Args:
      trained: the network.
    """

    def __init__(self, trained: Predictor):
        self.kind: Kind = trained.config["task"]
        self.class_names = trained.class_names
        self.any_size = False
        self._config = trained.config
        self._weights = jax.device_put(trained.state.to_evaluate())
        task = trained.task
        self._run = jax.jit(task.predict if self.kind == "classification" else task.detect)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns a picture (h, w, 3) as uint8 (s, s, 3), as evaluation sees it."""
        return configs.read_unlabelled(self._config, image)

    def __call__(self, images: np.ndarray) -> Results:
        """Returns the results of uint8 (n, s, s, 3); compiles once for each n."""
        results = jax.device_get(self._run(*self._weights, images))
        if self.kind == "detection":
            return results
        return softmax(results)


def load_workdir(
    path: str | Path, overrides: Sequence[str], *, best: bool = False
) -> WorkdirPredictor:
    """Returns the network of a work directory or of a checkpoint in it.

    Args and errors: as `load_predictor`.
    """
    return WorkdirPredictor(load_predictor(path, overrides, best=best))
