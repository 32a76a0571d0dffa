"""Frames into a video file."""

from pathlib import Path
from typing import Self

import numpy as np

from condconv_jax.data.opencv import require_opencv

LARGEST_NUMERATOR = 65535


class VideoWriter:
    """An MP4 file that grows by a frame at a time; a context manager.

    It is MPEG-4 part 2, the one codec for this container that every build of OpenCV can write.
    Sides of an odd number of pixels lose their last column or row, as the codec wants.

    Args:
      path: of the file, which is made, or overwritten.
      fps: frames per second, above 0.
      size: height and width of every frame, pixels.

    Raises:
      OSError: if it cannot be written there.
      ImportError: without OpenCV; it names the extra.
    """

    def __init__(self, path: str | Path, *, fps: float, size: tuple[int, int]):
        self._cv2 = cv2 = require_opencv("writing video")
        self.path, self._size, self._frames = Path(path), tuple(size), 0
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        rate = representable_rate(fps)
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, size[::-1])
        if not self._writer.isOpened():
            raise OSError(
                f"VideoWriter: cannot write {path}, {size[1]}x{size[0]} pixels at {fps:g} "
                "frames/s; pass a folder that is there and may be written to"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, image: np.ndarray) -> None:
        """Appends a frame.

        Args:
          image: uint8 (h, w, 3) in RGB.

        Raises:
          ValueError: if it is not of the file's size; OpenCV would leave it out without a word.
        """
        if image.dtype != np.uint8 or image.shape != (*self._size, 3):
            raise ValueError(
                f"VideoWriter.write: image is {image.dtype} {image.shape}; pass uint8 "
                f"{(*self._size, 3)}, as the file was begun"
            )
        self._writer.write(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR))
        self._frames += 1

    def close(self) -> None:
        """Ends the file, which cannot be played before.

        Raises:
          OSError: if it has not become whole, as on a full disk, of which OpenCV says nothing.
        """
        if not self._writer.isOpened():
            return
        self._writer.release()
        # The table of the frames is written last: where it is, all is.
        file = self._cv2.VideoCapture(str(self.path), self._cv2.CAP_FFMPEG)
        there = round(file.get(self._cv2.CAP_PROP_FRAME_COUNT)) if file.isOpened() else 0
        file.release()
        # More, if Ctrl-C came between a frame and its count.
        if there < self._frames:
            raise OSError(
                f"VideoWriter: of {self._frames} frames {self.path} has {there}; make room on the "
                "disk"
            )


def representable_rate(fps: float) -> float:
    """Returns the rate nearest to one in frames per second that MPEG-4 part 2 can have.

    OpenCV makes it a decimal fraction of up to three places, whose numerator the codec holds in 16
    bits: 66.667 would be 66667 / 1000.
    """
    for places in (3, 2, 1, 0):
        if round(fps * 10**places) <= LARGEST_NUMERATOR:
            return max(round(fps, places), 0.001)
    return float(LARGEST_NUMERATOR)
