"""Pictures in a folder per class: <path>/<class>/*.jpg, or <path>/<split>/<class>/*.jpg."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from condconv_jax.data.class_folders import is_sample, list_samples
from condconv_jax.data.decoding import decode_image
from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.data.zip_folder import ZipFolderSource, open_zip_folder


@dataclass(frozen=True, eq=False, repr=False)
class FolderSource(NamedSource[Sample]):
    """Picture files, read and decoded one at a time.

    Attributes:
      root: the folder the files are named from.
      files: relative paths, one per sample.
      labels: int64 (n,), 0..len(class_names) - 1.
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      CorruptSampleError: on reading, if a picture cannot be decoded.
      FileNotFoundError: on reading, if a picture was deleted since the folder was listed.
    """

    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        file = self.root / self.files[index]
        try:
            data = file.read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"FolderSource: {file} was deleted since {self.name} was opened; open the folder "
                f"again"
            ) from error
        return {"image": decode_image(data, str(file)), "label": int(self.labels[index])}


def open_folder(split: str, *, path: str = "") -> FolderSource | ZipFolderSource:
    """Returns the pictures of a folder per class, or of a zip archive of one.

    Class folders are sorted by name for the labels; pictures may lie in folders inside them.
    Hidden files and folders are ignored. With split folders (train, val, validation, test) the
    classes of `train` hold for every split; without, the whole folder is the split "train", to
    be cut by slices such as "train[:90%]".

    The order is fixed but mixed (by a hash of class and file name), the same on every machine,
    so that a slice is a fair sample of all classes and not the first few of them.

    Without any picture, WAV files are the samples, each as the picture of its spectrogram
    (`sound_picture`): of 16 kHz, one channel, 16 bits, about a second.

    An archive gives the same samples in the same order as the folder it was made of.

    Args:
      split: a split folder's name, or "train".
      path: the folder, or an archive whose name ends in .zip.

    Raises:
      FileNotFoundError: if the folder or archive does not exist.
      ValueError: if it is neither, the archive is damaged or packed in a way that cannot be read
        (`open_zip_folder`), the split is not there, there is no class folder or no picture, or a
        split has a class folder that `train` lacks.
    """
    if not path:
        raise ValueError("open_folder: got no path; pass the folder that holds the class folders")
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(
            f"open_folder: {root} does not exist; pass the folder that holds the class folders"
        )
    if root.is_file() and root.suffix.lower() == ".zip":
        return open_zip_folder(split, root)
    if not root.is_dir():
        raise ValueError(
            f"open_folder: {root} is a file; pass the folder of class folders, or a .zip of it"
        )
    listing = list_samples(_Directory(root), split)
    return FolderSource(
        root=root / listing.folder,
        files=listing.files,
        labels=listing.labels,
        class_names=listing.class_names,
        name=f"{split} of {root}",
    )


@dataclass(frozen=True)
class _Directory:
    """The `Tree` of a directory."""

    root: Path

    @property
    def label(self) -> str:
        return str(self.root)

    def folders(self, place: str) -> list[str]:
        with os.scandir(self.root / place) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def samples(self, place: str) -> Iterator[str]:
        # Links are followed: large data sets are often assembled from them.
        folder = self.root / place
        for parent, folders, files in os.walk(folder, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inner = Path(parent).relative_to(folder).as_posix()
            for name in files:
                if is_sample(name):
                    yield name if inner == "." else f"{inner}/{name}"
