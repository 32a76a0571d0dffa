"""A picture with boxes on its way through the augmentations, and what they have in common.

Zooming out and cropping only move a frame over the picture: pixels are touched once, when what is
seen in the frame is resized. A canvas of four times the picture's height and width is never made.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from condconv_jax.data.detection.boxes import clip_boxes
from condconv_jax.data.detection.sample import DetectionSample
from condconv_jax.data.resizing import mirrored, resized


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, the frame it is seen in, and the boxes.

    Attributes:
      image: uint8 (h, w, 3).
      frame: (top, left, bottom, right) of what the result shows, in whole pixels of the image;
        it may reach beyond the image, where `paint` fills it with one colour.
      boxes: float64 (n, 4), (top, left, bottom, right) in pixels of the image, inside image and
        frame.
      labels: int32 (n,).
      crowd: bool (n,).
    """

    image: np.ndarray
    frame: tuple[int, int, int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frame."""
        top, left, bottom, right = self.frame
        return bottom - top, right - left

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """The image itself as a frame."""
        return 0, 0, self.image.shape[0], self.image.shape[1]

    def shares(self) -> np.ndarray:
        """Returns the boxes as shares of the frame, float32 (n, 4) in 0..1."""
        moved = self.boxes - np.array([*self.frame[:2], *self.frame[:2]], np.float64)
        shares = moved / np.array([*self.frame_size, *self.frame_size], np.float64)
        return np.clip(shares, 0, 1).astype(np.float32)


# A step changes the picture, the frame or the boxes.
SceneStep = Callable[[Scene, np.random.Generator], Scene]


def whole_scene(sample: DetectionSample) -> Scene:
    """Returns a sample's picture in a frame of its own size."""
    image = sample["image"]
    height, width = image.shape[:2]
    boxes = sample["boxes"].astype(np.float64) * np.array([height, width, height, width])
    return Scene(image, (0, 0, height, width), boxes, sample["labels"], sample["crowd"])


def paint(scene: Scene, fill: tuple[int, int, int]) -> np.ndarray:
    """Returns what is seen in the frame, uint8 (h', w', 3) of the frame's size, contiguous.

    Args:
      scene: the picture.
      fill: red, green and blue of where there is no picture.
    """
    if scene.frame == scene.extent:
        return np.ascontiguousarray(scene.image)
    top, left, bottom, right = _visible(scene)
    canvas = np.empty((*scene.frame_size, 3), np.uint8)
    canvas[:] = fill
    down, across = top - scene.frame[0], left - scene.frame[1]
    part = scene.image[top:bottom, left:right]
    canvas[down : down + part.shape[0], across : across + part.shape[1]] = part
    return canvas


@dataclass(frozen=True)
class ResizeFrame:
    """What is seen in the frame, resized so that the frame is a square.

    Where the frame reaches beyond the picture, the picture's edges are laid on whole pixels of the
    result and the boxes follow them exactly.

    Attributes:
      size: height and width of the frame afterwards, pixels.
      interpolation: one of `INTERPOLATIONS`.
    """

    size: int
    interpolation: str = "bilinear"

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Returns the scene whose image is what was seen."""
        top, left, bottom, right = _visible(scene)
        rows = self._span(top, bottom, scene.frame[0], scene.frame[2])
        columns = self._span(left, right, scene.frame[1], scene.frame[3])
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        part = scene.image[top:bottom, left:right]
        scale = np.array([height / (bottom - top), width / (right - left)] * 2)
        return replace(
            scene,
            image=resized(part, (height, width), self.interpolation),
            frame=(-rows[0], -columns[0], self.size - rows[0], self.size - columns[0]),
            boxes=(scene.boxes - np.array([top, left, top, left])) * scale,
        )

    def _span(self, start: int, stop: int, frame_start: int, frame_stop: int) -> tuple[int, int]:
        """Returns where start..stop of the picture lies in the result, at least one pixel."""
        scale = self.size / (frame_stop - frame_start)
        first = min(round((start - frame_start) * scale), self.size - 1)
        return first, max(round((stop - frame_start) * scale), first + 1)


def flip_horizontally(scene: Scene) -> Scene:
    """Returns the scene with left and right exchanged."""
    width = scene.image.shape[1]
    top, left, bottom, right = scene.frame
    boxes = scene.boxes[:, [0, 3, 2, 1]]
    boxes[:, 1::2] = width - boxes[:, 1::2]
    frame = (top, width - right, bottom, width - left)
    return replace(scene, image=mirrored(scene.image), frame=frame, boxes=boxes)


def flip_vertically(scene: Scene) -> Scene:
    """Returns the scene with top and bottom exchanged."""
    height = scene.image.shape[0]
    top, left, bottom, right = scene.frame
    boxes = scene.boxes[:, [2, 1, 0, 3]]
    boxes[:, ::2] = height - boxes[:, ::2]
    frame = (height - bottom, left, height - top, right)
    return replace(scene, image=scene.image[::-1], frame=frame, boxes=boxes)


def _visible(scene: Scene) -> tuple[int, int, int, int]:
    """Returns the part of the image inside the frame, which no step leaves empty."""
    part = clip_boxes(np.array(scene.frame), np.array(scene.extent))
    top, left, bottom, right = part.tolist()
    return top, left, bottom, right
