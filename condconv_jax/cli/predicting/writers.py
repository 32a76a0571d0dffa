"""Where predictions go: lines of text or of JSON on stdout, and drawn pictures and videos."""

import json
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from condconv_jax.cli.predicting.inputs import Failure, View
from condconv_jax.cli.predicting.predictions import Prediction
from condconv_jax.data.video_writer import VideoWriter


class Writer(Protocol):
    """Takes predictions one by one."""

    def write(self, view: View, prediction: Prediction) -> None:
        """Takes what was predicted of a picture or a frame."""
        ...

    def fail(self, failure: Failure) -> None:
        """Takes that a file could not be read, or not to its end."""
        ...

    def close(self) -> None:
        """Ends what was begun; called once, whatever happens before."""
        ...


class TextWriter:
    """A line for each picture or frame."""

    def write(self, view: View, prediction: Prediction) -> None:
        """Prints its name and what is predicted."""
        print(f"{view.name}: {prediction.text()}", flush=True)

    def fail(self, failure: Failure) -> None:
        """Does nothing: stderr has the file's name."""

    def close(self) -> None:
        """Does nothing."""


class JsonWriter:
    """A JSON object on a line of its own for each picture, frame or failure."""

    def write(self, view: View, prediction: Prediction) -> None:
        """Prints {"file", "frame" and "seconds" of a video, and what is predicted}."""
        place: dict[str, Any] = {"file": view.file}
        if view.moment is not None:
            place |= {"frame": view.moment.frame, "seconds": round(view.moment.seconds, 6)}
        print_json(place | prediction.fields(*view.image.shape[:2]))

    def fail(self, failure: Failure) -> None:
        """Prints {"file", "error"}."""
        print_json({"file": failure.file, "error": failure.error})

    def close(self) -> None:
        """Does nothing."""


def print_json(content: dict[str, Any]) -> None:
    """Prints an object on a line of stdout."""
    print(json.dumps(content), flush=True)


class DrawnWriter:
    """A PNG file for each picture and an MP4 file for each video, in one folder.

    Files are called as they were; of several of one name the later ones get a number.

    Args:
      folder: is made if it is not there.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._written: set[str] = set()
        self._video: VideoWriter | None = None
        self._place: tuple[str, tuple[int, ...]] | None = None  # file and size of that video
        self._frames = 0  # of it

    def write(self, view: View, prediction: Prediction) -> None:
        """Draws a picture, or appends a frame to its video."""
        drawn = prediction.drawn(view.image)
        if view.moment is None:
            Image.fromarray(drawn).save(self._unused(view.file, ".png"))
            return
        # A file has one size, a broadcast that was recorded may have several.
        place = (view.file, drawn.shape[:2])
        if self._video is None or place != self._place or view.moment.frame == 0:
            self.close()
            path = self._unused(view.file, ".mp4")
            self._video = VideoWriter(path, fps=view.moment.fps, size=drawn.shape[:2])
            self._place = place
            self._frames = 0
        # Of a camera some frames were missed while others were predicted: each stays for its time.
        due = round(view.moment.seconds * view.moment.fps) + 1 if view.moment.live else 0
        for _ in range(max(1, due - self._frames)):
            self._video.write(drawn)
            self._frames += 1

    def fail(self, failure: Failure) -> None:
        """Does nothing: what was drawn before stays."""

    def close(self) -> None:
        """Ends the video that is being written, if one is.

        Raises:
          OSError: if it has not become whole.
        """
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def _unused(self, file: str, ending: str) -> Path:
        # Files of one name from several folders must not overwrite each other.
        stem = Path(file).stem
        name, number = stem, 1
        while name + ending in self._written:
            number += 1
            name = f"{stem}_{number}"
        self._written.add(name + ending)
        return self._folder / (name + ending)
