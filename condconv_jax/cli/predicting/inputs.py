"""What there is to look at: the files that were named, and the pictures and frames in them."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from condconv_jax.data.class_folders import EXTENSIONS, SOUND_EXTENSIONS, is_picture, is_sample
from condconv_jax.data.decoding import decode_image
from condconv_jax.data.video import Video, is_video


@dataclass(frozen=True)
class Moment:
    """Where in a video a frame is.

    Attributes:
      frame: its number, from 0.
      seconds: its time in the video.
      fps: frames per second of the video.
      live: whether it is of a camera, whose frames do not wait for who is slower.
    """

    frame: int
    seconds: float
    fps: float
    live: bool = False


@dataclass(frozen=True)
class View:
    """A picture, or a frame of a video.

    Attributes:
      file: where it is from, as it was named.
      image: uint8 (h, w, 3) in RGB.
      moment: of a frame; None of a picture.
    """

    file: str
    image: np.ndarray
    moment: Moment | None = None

    @property
    def name(self) -> str:
        """What texts call it."""
        if self.moment is None:
            return self.file
        return f"{self.file} frame {self.moment.frame} ({self.moment.seconds:.3f} s)"


@dataclass(frozen=True)
class Failure:
    """A file that could not be read, or not to its end.

    Attributes:
      file: as it was named.
      error: why not.
    """

    file: str
    error: str


def find_inputs(names: Sequence[str], out: str | None) -> list[Path]:
    """Returns the files that were named, and the pictures and videos in folders that were.

    What was drawn before is nothing to look at, and no file may be drawn over.

    Args:
      names: files, folders, or patterns with *, ** (folders at any depth), ? and [...].
      out: the folder to be drawn to.

    Raises:
      FileNotFoundError: if a name leads to nothing.
      ValueError: if a file that was named, or the whole of a folder, is in `out`.
    """
    drawn = Path(out).resolve() if out else None

    def is_drawn(path: Path) -> bool:
        return drawn is not None and path.resolve().is_relative_to(drawn)

    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            if drawn == path.resolve():
                raise ValueError(f"--out={out} is the folder of the pictures; pass another one")
            inside = [item for item in sorted(path.rglob("*")) if _is_input(item)]
            files = [item for item in inside if not is_drawn(item)]
            # As in the folders that networks are trained on, sounds are looked at where there is
            # nothing else.
            files = [item for item in files if not _is_sound(item)] or files
            if not files:
                wanted = ", ".join((*EXTENSIONS, *SOUND_EXTENSIONS))
                raise FileNotFoundError(f"no picture in {name!r}; wants {wanted}, or a video")
        elif path.exists():
            if is_drawn(path):
                raise ValueError(f"--out={out} holds {name!r} itself; pass another folder")
            files = [path]
        elif glob.has_magic(name):
            matches = [Path(match) for match in sorted(set(glob.glob(name, recursive=True)))]
            files = [item for item in matches if item.is_file() and not is_drawn(item)]
            if not files:
                raise FileNotFoundError(f"no file matches {name!r}; pass files or folders")
        else:
            raise FileNotFoundError(f"no picture {name!r}; pass files or folders")
        found += files
    return found


def _is_input(path: Path) -> bool:
    return (is_sample(path.name) or is_video(path.name)) and not path.is_dir()


def _is_sound(path: Path) -> bool:
    return is_sample(path.name) and not is_picture(path.name)


def read_inputs(files: Iterable[Path]) -> Iterator[View | Failure]:
    """Yields the pictures and frames of files, and in their places the failures to read them.

    A video that ends too early is one after its last frame.
    """
    for file in files:
        try:
            if is_video(file.name):
                with Video(file) as video:
                    yield from read_frames(video)
            else:
                yield View(str(file), decode_image(file.read_bytes(), str(file)))
        except (ValueError, OSError) as error:
            yield Failure(str(file), str(error))


def read_frames(video: Video) -> Iterator[View]:
    """Yields the frames of a video.

    Raises:
      CorruptSampleError: as iterating over it.
    """
    for image, number, seconds in video:
        yield View(video.name, image, Moment(number, seconds, video.fps, video.is_camera))
