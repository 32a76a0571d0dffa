"""SSD's augmentations of where things are: zooming out, cropping, flipping.

Source: Liu et al. 2016, arXiv 1512.02325, sections 2.2 (crops) and 3.6 (zooming out), and the
authors' code, weiliu89/caffe, branch ssd: src/caffe/util/sampler.cpp and
examples/ssd/ssd_coco.py for every number.
"""

from dataclasses import dataclass, replace

import numpy as np

from condconv_jax.data.detection.boxes import box_overlap, centres_inside, clip_boxes, has_inside
from condconv_jax.data.detection.scene import Scene, flip_horizontally, flip_vertically


@dataclass(frozen=True)
class Expand:
    """In some cases, the frame grows and the picture lies somewhere in it, which makes it smaller.

    Attributes:
      most: height and width grow by one factor, uniform in 1..most.
      probability: of growing at all.
    """

    most: float = 4.0
    probability: float = 0.5

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Returns the scene with a larger frame; picture and boxes stay."""
        if rng.random() >= self.probability:
            return scene
        factor = rng.uniform(1, self.most)
        height, width = (round(side * factor) for side in scene.frame_size)
        top = scene.frame[0] - int(rng.integers(height - scene.frame_size[0] + 1))
        left = scene.frame[1] - int(rng.integers(width - scene.frame_size[1] + 1))
        return replace(scene, frame=(top, left, top + height, left + width))


@dataclass(frozen=True)
class RandomOverlapCrop:
    """A random part of the frame that overlaps an object at least so much, or all of it.

    One of these is chosen, each as often as the others: the whole frame; a part whose overlap
    (intersection over union) with an object is at least one of `overlaps`; any part. Boxes whose
    centre lies in the part stay, cut off at its edge, and so does what is left of crowds; the
    overlap is that of a box that stays. Where no part of `attempts` is fit, the whole frame is
    taken. So at least one object stays if there was one.

    Objects are boxes that are no crowds; where all are crowds, those; where there is no box, the
    picture itself, so that it never leaves the frame.

    In the authors' code all kinds of parts are drawn first and one of those that were found is
    taken, and the boxes whose overlap counts need not stay, so that a part may have none.

    Attributes:
      overlaps: least overlaps, one of which is chosen.
      scale: least and most square root of the part's share of the frame's area; 0.3 is 9% of it.
      aspect: least and most width / height, both as shares of the frame's. Bounded besides by
        scale^2 and 1 / scale^2, so that the part fits.
      attempts: how many parts are drawn.
    """

    overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    attempts: int = 50

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Returns the scene with a smaller frame and the boxes that are left."""
        least = (None, *self.overlaps, 0.0)[rng.integers(len(self.overlaps) + 2)]
        if least is None:
            return scene
        windows = self._windows(scene, rng)
        objects = scene.boxes[~scene.crowd] if not scene.crowd.all() else scene.boxes
        if len(objects) == 0:
            objects = np.array([scene.extent], np.float64)
        fits = centres_inside(objects, windows) & (box_overlap(windows, objects) >= least)
        fit = fits.any(axis=1)
        if not fit.any():
            return scene
        window = windows[np.argmax(fit)]
        stays = centres_inside(scene.boxes, window[np.newaxis])[0]
        # Of a crowd any part still shows objects, which must not be learned as background.
        stays |= scene.crowd & has_inside(clip_boxes(scene.boxes, window))
        top, left, bottom, right = map(int, window.tolist())
        return replace(
            scene,
            frame=(top, left, bottom, right),
            boxes=clip_boxes(scene.boxes[stays], window),
            labels=scene.labels[stays],
            crowd=scene.crowd[stays],
        )

    def _windows(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """Returns float64 (attempts, 4), whole pixels of the image."""
        # All at once: one by one they would take most of the time of the augmentation.
        draws = rng.random((4, self.attempts))
        scale = self.scale[0] + draws[0] * (self.scale[1] - self.scale[0])
        aspect = self.aspect[0] + draws[1] * (self.aspect[1] - self.aspect[0])
        root = np.sqrt(np.clip(aspect, scale**2, 1 / scale**2))
        sides = np.array(scene.frame_size)[:, np.newaxis]
        lengths = np.clip(np.round(sides * np.stack([scale / root, scale * root])), 1, sides)
        # floor(u (n + 1)) is uniform in 0..n.
        starts = np.floor(draws[2:] * (sides - lengths + 1))
        starts += np.array(scene.frame[:2])[:, np.newaxis]
        return np.concatenate([starts, starts + lengths]).T


@dataclass(frozen=True)
class RandomFlips:
    """The mirror image in half of the cases, left to right and, if asked for, top to bottom.

    Attributes:
      vertical: whether top and bottom are exchanged too, in half of the cases of their own.
    """

    vertical: bool = False

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Returns the scene, flipped or not."""
        if rng.integers(2):
            scene = flip_horizontally(scene)
        if self.vertical and rng.integers(2):
            scene = flip_vertically(scene)
        return scene
