"""Detection sources by name."""

from collections.abc import Callable, Mapping
from typing import Any

from condconv_jax.data.detection.coco import open_coco
from condconv_jax.data.detection.sample import DetectionSample
from condconv_jax.data.detection.tfds import open_tfds_detection
from condconv_jax.data.registry import open_from
from condconv_jax.data.source import Source

# Each opens one whole split: opener(split, *, path="", **options) -> Source.
DETECTION_SOURCES: Mapping[str, Callable[..., Source[DetectionSample]]] = {
    "coco": open_coco,
    "tfds": open_tfds_detection,
}


def open_detection_source(
    name: str, split: str, *, path: str = "", **options: Any
) -> Source[DetectionSample]:
    """Returns the samples of a split, or of a part of it.

    Args:
      name: one of `DETECTION_SOURCES`.
      split: a split's name, with an optional slice in samples or percent ("train[:200]",
        "train[90%:]"); several joined by "+" follow one another.
      path: where the data lie; what it means is the source's own.
      **options: the source's own, see its function in `DETECTION_SOURCES`.

    Raises:
      ValueError: if the name, the split or an option is unknown, the slice is malformed or
        empty, or the data are not what the source reads.
      FileNotFoundError: if there are no data at the path, or pictures are missing.
    """
    return open_from("open_detection_source", DETECTION_SOURCES, name, split, path, options)
