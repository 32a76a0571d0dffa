"""Predictors whose results are plain to see, and videos for them."""

import importlib.util

import numpy as np
import pytest

needs_opencv = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="the extra fast-data is not installed"
)


class Greys:
    """A classifier of grey levels: "light" with the mean grey / 255 as its probability."""

    kind, class_names = "classification", ("dark", "light")

    def __init__(self, any_size=False):
        self.any_size, self.shapes = any_size, []

    def prepare(self, image):
        return np.full((4, 4, 3), round(image.mean()), np.uint8)

    def __call__(self, images):
        self.shapes.append(images.shape)
        light = images.mean(axis=(1, 2, 3)).astype(np.float32) / 255
        return np.stack([1 - light, light], axis=1)


class Boxes:
    """A detector that finds the same in every picture, at scores 0.9, 0.6 and 0.3."""

    kind, class_names = "detection", ("cat", "dog")
    any_size = False

    def prepare(self, image):
        return np.zeros((4, 4, 3), np.uint8)

    def __call__(self, images):
        boxes = [[0.25, 0.1, 0.75, 1.2], [0, 0, 1, 1], [0.5, 0.5, 0.6, 0.6], [0, 0, 0, 0]]
        found = (np.array(boxes, np.float32), np.array([0.9, 0.6, 0.3, 0]), [1, 0, 1, -1])
        return tuple(np.repeat(np.array(part)[None], len(images), axis=0) for part in found)


def write_video(path, images, *, fps=10.0, codec="mp4v"):
    """Writes uint8 (h, w, 3) RGB pictures as a video."""
    import cv2

    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    for image in images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    return path


def greys(levels, size=(32, 48)):
    """Pictures of one grey each."""
    return [np.full((*size, 3), level, np.uint8) for level in levels]
