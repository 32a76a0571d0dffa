"""A predictor from a file that `condconv export` wrote."""

from pathlib import Path

import jax
import numpy as np

from condconv_jax import config as configs
from condconv_jax.cli.exporting import VERSION
from condconv_jax.cli.predicting.predictor import Kind, Results, softmax
from condconv_jax.interop.export import Exported, read_exported
from condconv_jax.tasks.detection.nms import select_detections


class ExportedPredictor:
    """An exported program as a `PicturePredictor`.

    Args:
      exported: the program.

    Raises:
      ValueError: if its metadata are not those that `condconv export` writes.
    """

    def __init__(self, exported: Exported):
        metadata = exported.metadata
        missing = [key for key in ("task", "class_names", "config") if key not in metadata]
        if missing or metadata.get("format_version") != VERSION:
            lacks = f"without {', '.join(missing)}" if missing else "of another version"
            raise ValueError(f"the program has metadata {lacks}; pass one of `condconv export`")
        self.kind: Kind = metadata["task"]
        self.class_names = tuple(metadata["class_names"])
        self.runtime = exported.runtime
        self.any_size = exported.any_size
        self._config = configs.completed(metadata["config"]).to_dict()
        self._run, self._one_by_one = exported.run, exported.one_by_one
        # Suppression is not part of the program: neither ONNX nor LiteRT has this one.
        options = metadata.get("suppression", {})
        self._select = jax.jit(lambda boxes, scores: select_detections(boxes, scores, **options))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns a picture (h, w, 3) as uint8 (s, s, 3), as evaluation sees it."""
        return configs.read_unlabelled(self._config, image)

    def __call__(self, images: np.ndarray) -> Results:
        """Returns the results of uint8 (n, s, s, 3)."""
        batches = [image[None] for image in images] if self._one_by_one else [images]
        parts = [self._run(batch) for batch in batches]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.kind == "classification":
            return softmax(outputs["logits"])
        return jax.device_get(self._select(outputs["boxes"], outputs["scores"]))


def load_exported(path: str | Path, *, threads: int | None = None) -> ExportedPredictor:
    """Returns the program in a file.

    Args and errors: as `read_exported`.
    """
    return ExportedPredictor(read_exported(path, threads=threads))
