"""What predicts, seen from the rest of `condconv predict`, wherever its network comes from."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

Kind = Literal["classification", "detection"]

# Of classification: probabilities (n, classes) float32. Of detection, best first, m places for each
# picture:
#   boxes (n, m, 4) float32 as (top, left, bottom, right), in shares of the picture's height and
#     width, whatever its size was before `prepare`;
#   scores (n, m) float32, 0 to 1;
#   labels (n, m) int, -1 where nothing is.
Results = np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]


class PicturePredictor(Protocol):
    """A network that is ready to run, with what its pictures need before it."""

    @property
    def kind(self) -> Kind:
        """Which results it gives."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """By label."""
        ...

    @property
    def any_size(self) -> bool:
        """Whether a batch of a size that is new costs no compilation."""
        ...

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns a picture as the network takes it.

        Args:
          image: uint8 (h, w, 3) in RGB, of any size.

        Returns:
          uint8 (s, s, 3), of one size s for all pictures.
        """
        ...

    def __call__(self, images: np.ndarray) -> Results:
        """Returns the results of a batch, in NumPy arrays: when it returns, all is computed.

        May compile for each n that it is first called with.

        Args:
          images: uint8 (n, s, s, 3), as `prepare` returns them, stacked.
        """
        ...


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of logits (n, classes)."""
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)
