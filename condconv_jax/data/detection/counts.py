"""How many boxes the pictures of a source have, without reading them."""

from typing import Any, NamedTuple

import numpy as np

from condconv_jax.data.corrupt import SkippingSource
from condconv_jax.data.detection.coco import CocoSource
from condconv_jax.data.source import ConcatenatedSource, SubsetSource


class ObjectCounts(NamedTuple):
    """Numbers of every picture of a source.

    Attributes:
      boxes: int64 (n,), crowd regions among them.
      objects: int64 (n,), without those.
    """

    boxes: np.ndarray
    objects: np.ndarray


def object_counts(source: Any) -> ObjectCounts | None:
    """Returns the counts of a source made of COCO files; None of one that does not know them.

    Args:
      source: of detection samples, or a part or several of them.
    """
    if isinstance(source, CocoSource):
        offsets, crowd = source.annotations.offsets, source.annotations.crowd
        crowds = np.diff(np.concatenate([[0], np.cumsum(crowd)])[offsets])
        boxes = np.diff(offsets)
        return ObjectCounts(boxes, boxes - crowds)
    if isinstance(source, SkippingSource):
        return object_counts(source.source)
    if isinstance(source, SubsetSource):
        whole = object_counts(source.source)
        return whole and ObjectCounts(*(part[source.start : source.stop] for part in whole))
    if isinstance(source, ConcatenatedSource):
        found = [counts for part in source.sources if (counts := object_counts(part)) is not None]
        if len(found) == len(source.sources):
            return ObjectCounts(*map(np.concatenate, zip(*found, strict=True)))
    return None
