"""What is predicted of one picture, and how it is told: in words, in JSON, on the picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from condconv_jax.cli.predicting.predictor import Kind, Results


class Prediction(Protocol):
    """Of one picture."""

    def text(self) -> str:
        """Returns it in words, on one line."""
        ...

    def fields(self, height: int, width: int) -> dict[str, Any]:
        """Returns it as plain values.

        Args:
          height: of the picture, pixels.
          width: likewise.
        """
        ...

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """Returns the picture, uint8 (h, w, 3), with it drawn on: a copy."""
        ...


# The results of a batch and a picture's place in it -> what is predicted of the picture.
Select = Callable[[Results, int], Prediction]


@dataclass(frozen=True)
class ClassPrediction:
    """The likeliest classes of a picture.

    Attributes:
      labels: (k,) int, the likeliest first.
      probabilities: (k,), of those.
      class_names: by label.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]

    def text(self) -> str:
        """Returns each class and its probability."""
        return ", ".join(f"{name} {probability:.3f}" for name, _, probability in self._rows())

    def fields(self, height: int, width: int) -> dict[str, Any]:
        """Returns {"classes": [...]}; the picture's size is not used."""
        keys = ("name", "label", "probability")
        return {"classes": [dict(zip(keys, row, strict=True)) for row in self._rows()]}

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """Returns the picture with the first class and its probability written on it."""
        from condconv_jax.analysis import draw_caption

        name, _, probability = self._rows()[0]
        return draw_caption(image, name, f"{probability:.2f}")

    def _rows(self) -> list[tuple[str, int, float]]:
        pairs = zip(self.labels.tolist(), self.probabilities.tolist(), strict=True)
        return [(self.class_names[label], label, probability) for label, probability in pairs]


@dataclass(frozen=True)
class ObjectPrediction:
    """The objects that were found in a picture.

    Attributes:
      boxes: (k, 4) as (top, left, bottom, right) in shares of the picture's height and width.
      scores: (k,), the highest first.
      labels: (k,) int.
      class_names: by label.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]

    def text(self) -> str:
        """Returns how many of each class there are."""
        counts = [(int((self.labels == k).sum()), name) for k, name in enumerate(self.class_names)]
        return ", ".join(f"{count} {name}" for count, name in counts if count) or "nothing"

    def fields(self, height: int, width: int) -> dict[str, Any]:
        """Returns {"objects": [...]}, with boxes in pixels, cut off at the picture's edges."""
        pixels = self.boxes.clip(0, 1).astype(np.float64) * (height, width, height, width)
        parts = (self.labels.tolist(), self.scores.tolist(), pixels.round(2).tolist())
        return {
            "objects": [
                {"name": self.class_names[label], "label": label, "score": score, "box": box}
                for label, score, box in zip(*parts, strict=True)
            ]
        }

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """Returns the picture with the boxes drawn on it."""
        from condconv_jax.analysis import draw_boxes

        return draw_boxes(image, self.boxes, self.labels, self.scores, class_names=self.class_names)


def make_select(kind: Kind, class_names: Sequence[str], *, top: int, threshold: float) -> Select:
    """Returns what picks a picture's prediction out of the results of its batch.

    Args:
      kind: of the results.
      class_names: by label.
      top: of classification, how many classes to name.
      threshold: of detection, the least score to name.
    """

    def classes(probabilities: Any, index: int) -> Prediction:
        row = probabilities[index]
        best = np.argsort(-row, kind="stable")[:top]
        return ClassPrediction(best, row[best], class_names)

    def objects(found: Any, index: int) -> Prediction:
        boxes, scores, labels = (part[index] for part in found)
        keep = (labels >= 0) & (scores >= threshold)
        return ObjectPrediction(boxes[keep], scores[keep], labels[keep], class_names)

    return classes if kind == "classification" else objects
