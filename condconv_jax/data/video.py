"""Frames of a video file or a camera, one after another."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from condconv_jax.data.decoding import CorruptSampleError
from condconv_jax.data.opencv import require_opencv

EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

# Where the file or the camera tells none; frames/s, and height and width in pixels.
USUAL_RATE, USUAL_SIZE = 30.0, (480, 640)


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
      image: uint8 (h, w, 3) in RGB.
      number: from 0.
      seconds: of a file, its time in the video; of a camera, since the first frame.
    """

    image: np.ndarray
    number: int
    seconds: float


def is_video(name: str) -> bool:
    """Returns whether a file is taken for a video, by its name without folders."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


class Video:
    """A video file or a camera, opened; a context manager, iterated once.

    A phone's video is turned as the phone was held, which the file says; a picture is not
    (`decode_image`).

    Attributes:
      name: what messages call it.
      fps: its frames per second, as it says; 30 where it says nothing.
      size: height and width of its frames in pixels, as it says.
      is_camera: whether it is one.

    Args:
      source: the file, or the number of a camera, 0 for the first.

    Raises:
      CorruptSampleError: if the file is no video that can be read.
      FileNotFoundError: if there is no such file, or no such camera.
      ImportError: without OpenCV; it names the extra.
    """

    def __init__(self, source: str | Path | int):
        self._cv2 = cv2 = require_opencv("reading video")
        self.is_camera = isinstance(source, int)
        self.name = f"camera {source}" if self.is_camera else str(source)
        if isinstance(source, int):
            self._capture = cv2.VideoCapture(source)
            # Frames that wait would be late when they come.
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            if not Path(source).is_file():
                raise FileNotFoundError(f"no video {str(source)!r}; pass a file")
            # Asked for by name, lest others take its number for that of a picture in a series.
            self._capture = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            if self.is_camera:
                raise FileNotFoundError(f"{self.name} cannot be opened; pass another number")
            raise CorruptSampleError(
                f"Video: cannot read {self.name} ({Path(self.name).stat().st_size} bytes): its "
                "end may be missing, or it is no video; replace it by an intact one"
            )
        self.fps = self._told(cv2.CAP_PROP_FPS) or USUAL_RATE
        height, width = (
            int(self._told(part)) for part in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        )
        self.size = (height, width) if height and width else USUAL_SIZE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames that can be read.

        Raises:
          CorruptSampleError: after the last of them, if a file ends before the time that it
            announces, or a camera, which has no end, gives no more.
        """
        number, seconds, start = 0, 0.0, 0.0
        while True:
            there, image = self._capture.read()
            if not there:
                break
            if self.is_camera:
                start = start or time.monotonic()
                seconds = time.monotonic() - start
            else:
                told = self._told(self._cv2.CAP_PROP_POS_MSEC) / 1000
                # Some containers have no times.
                seconds = told if told or not number else number / self.fps
            yield Frame(self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB), number, seconds)
            number += 1
        if self.is_camera:
            raise CorruptSampleError(
                f"Video: {self.name} gives no more frames after {number}; see whether it is "
                "plugged in and no other program uses it"
            )
        self._check_end(number, seconds)

    def close(self) -> None:
        """Lets go of the file or the camera."""
        self._capture.release()

    def _told(self, key: int) -> float:
        value = self._capture.get(key)
        return value if math.isfinite(value) and value > 0 else 0.0

    def _check_end(self, read: int, last: float) -> None:
        announced = self._told(self._cv2.CAP_PROP_FRAME_COUNT)
        # A count may be the product of duration and rate, and of a video of varying rate be wrong:
        # what counts is that time is missing too, more than rounding makes of one frame.
        missing = announced / self.fps - (last + 1 / self.fps) if read else math.inf
        if read == 0 or (read < announced and missing * self.fps > 1.5):
            raise CorruptSampleError(
                f"Video: {self.name} ends after {read} of {round(announced)} frames; replace it "
                "by an intact one"
            )
