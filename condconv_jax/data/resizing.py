"""Ways to resize a picture, by name, and its mirror image.

To bring a random crop of a picture of 500x375 to 224x224 takes Pillow 566 us (bilinear) to 1178 us
(lanczos) and OpenCV 99 us (bilinear) to 351 us (area); from benchmarks/results/input.json. But
OpenCV's results are others: a network is to be trained and evaluated with the same interpolation.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from condconv_jax.data.opencv import import_opencv
from condconv_jax.names import unknown_name

# (uint8 (h, w, 3), (height, width)) -> uint8 (height, width, 3)
Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def _with_pillow(
    image: np.ndarray, size: tuple[int, int], *, filter: Image.Resampling
) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size[::-1], filter))


def _with_opencv(image: np.ndarray, size: tuple[int, int], *, flag: str) -> np.ndarray:
    cv2 = import_opencv()
    return cv2.resize(image, size[::-1], interpolation=getattr(cv2, flag))


# Pillow's are antialiased: it widens its filter when it shrinks a picture. Of OpenCV's only "area"
# is; the others take 2 x 2 and 4 x 4 pixels at any scale, as tf.image does by default.
INTERPOLATIONS: Mapping[str, Resize] = {
    "bicubic": functools.partial(_with_pillow, filter=Image.Resampling.BICUBIC),
    "bilinear": functools.partial(_with_pillow, filter=Image.Resampling.BILINEAR),
    "lanczos": functools.partial(_with_pillow, filter=Image.Resampling.LANCZOS),
    "opencv_area": functools.partial(_with_opencv, flag="INTER_AREA"),
    "opencv_bicubic": functools.partial(_with_opencv, flag="INTER_CUBIC"),
    "opencv_bilinear": functools.partial(_with_opencv, flag="INTER_LINEAR"),
}


def check_interpolation(function: str, name: str) -> None:
    """Raises ValueError unless `name` is one of `INTERPOLATIONS` and can run here.

    Args:
      function: that the message names.
      name: as given.
    """
    if name not in INTERPOLATIONS:
        raise unknown_name(function, "interpolation", name, INTERPOLATIONS)
    if name.startswith("opencv_") and import_opencv() is None:
        pillows = [choice for choice in INTERPOLATIONS if not choice.startswith("opencv_")]
        raise ValueError(
            f"{function}: interpolation {name!r} needs OpenCV, which is not installed; install "
            f"the extra fast-data (pip install 'condconv_jax[fast-data]'), or choose one of "
            f"{', '.join(map(repr, pillows))}"
        )


def resized(image: np.ndarray, size: int | tuple[int, int], interpolation: str) -> np.ndarray:
    """Returns a picture (h, w, 3) as uint8 of another size, by one of `INTERPOLATIONS`.

    Args:
      image: the picture.
      size: side of a square, or height and width, pixels.
      interpolation: by name.
    """
    size = (size, size) if isinstance(size, int) else size
    if image.shape[:2] == size:
        return image  # resampling at the same scale would return the same pixels
    return INTERPOLATIONS[interpolation](image, size)


def mirrored(image: np.ndarray) -> np.ndarray:
    """Returns a copy of a picture (h, w, c), left and right exchanged.

    Copying `image[:, ::-1]` as a whole moves three bytes at a time: 165 us at 224x224, against 51
    channel by channel and 4 by OpenCV (one core of an AMD EPYC with Pillow 13, OpenCV 5.0).
    """
    if (cv2 := import_opencv()) is not None:
        return cv2.flip(image, 1).reshape(image.shape)  # it drops an axis of one channel
    result = np.empty_like(image)
    for channel in range(image.shape[2]):
        result[..., channel] = image[:, ::-1, channel]
    return result
