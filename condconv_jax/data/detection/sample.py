"""What a picture with boxes is."""

from typing import TypedDict

import numpy as np

from condconv_jax.data.source import Source


class DetectionSample(TypedDict):
    """One picture and the n objects in it.

    image     uint8 (h, w, 3), RGB
    boxes     float32 (n, 4), (top, left, bottom, right) as shares 0..1 of height and width
    labels    int32 (n,), 0..num_classes - 1
    crowd     bool (n,), whether the box holds a group that is not told apart
    area      float32 (n,), pixels^2 of the picture: the object's where that is known, or its box's
    image_id  fits int32; the data set's own, or the sample's index in its split
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    image_id: int


DetectionSource = Source[DetectionSample]
