"""Pictures in a folder per class: <path>/<class>/*.jpg, or <path>/<split>/<class>/*.jpg."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from condconv_jax.data.decoding import decode_image
from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.names import unknown_name

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SPLIT_FOLDERS = ("train", "val", "validation", "test")


@dataclass(frozen=True, eq=False, repr=False)
class FolderSource(NamedSource):
    """Picture files, read and decoded one at a time.

    Attributes:
      root: the folder the files are named from.
      files: relative paths, one per sample.
      labels: int64 (n,), 0..len(class_names) - 1.
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      ValueError: on reading, if a picture cannot be decoded.
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


def open_folder(split: str, *, path: str = "") -> FolderSource:
    """Returns the pictures of a folder per class.

    Class folders are sorted by name for the labels; pictures may lie in folders inside them.
    Hidden files and folders are ignored. With split folders (train, val, validation, test) the
    classes of `train` hold for every split; without, the whole folder is the split "train", to
    be cut by slices such as "train[:90%]".

    The order is fixed but mixed (by a hash of class and file name), the same on every machine,
    so that a slice is a fair sample of all classes and not the first few of them.

    Args:
      split: a split folder's name, or "train".
      path: the folder.

    Raises:
      FileNotFoundError: if the folder does not exist.
      ValueError: if it is not a folder, the split is not there, there is no class folder or no
        picture, or a split has a class folder that `train` lacks.
    """
    if not path:
        raise ValueError("open_folder: got no path; pass the folder that holds the class folders")
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(
            f"open_folder: {root} does not exist; pass the folder that holds the class folders"
        )
    if not root.is_dir():
        raise ValueError(f"open_folder: {root} is a file; pass the folder of class folders")

    split_folders = [name for name in _folders(root) if name in SPLIT_FOLDERS]
    if split not in (split_folders or ("train",)):
        raise unknown_name("open_folder", f"split of {root}", split, split_folders or ("train",))
    folder = root / split if split_folders else root
    class_names = _class_names(root, split, split_folders, folder)

    found = [
        (f"{label_name}/{file}", label)
        for label, label_name in enumerate(class_names)
        for file in _pictures(folder / label_name)
    ]
    if not found:
        raise ValueError(
            f"open_folder: no picture in the {len(class_names)} class folders of {folder}; wants "
            f"files ending in {', '.join(EXTENSIONS)} (or capitals)"
        )
    found.sort(key=lambda item: hashlib.blake2b(os.fsencode(item[0]), digest_size=8).digest())
    return FolderSource(
        root=folder,
        files=tuple(file for file, _ in found),
        labels=np.array([label for _, label in found], dtype=np.int64),
        class_names=class_names,
        name=f"{split} of {root}",
    )


def _class_names(root: Path, split: str, split_folders: list[str], folder: Path) -> tuple[str, ...]:
    reference = root / "train" if "train" in split_folders else folder
    names = _folders(reference)
    if not names:
        raise ValueError(
            f"open_folder: no class folder in {reference}; wants one folder per class with its "
            f"pictures inside"
        )
    strangers = sorted(set(_folders(folder)) - set(names))
    if strangers:
        raise ValueError(
            f"open_folder: {folder} has class folders that {reference} lacks: "
            f"{', '.join(strangers[:5])}{', ...' if len(strangers) > 5 else ''}; sort the "
            f"pictures of {split} into the classes of train"
        )
    return tuple(names)


def _folders(place: Path) -> list[str]:
    with os.scandir(place) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _pictures(folder: Path) -> Iterator[str]:
    """Yields pictures below a class folder, relative to it, with / on every system.

    Links are followed: large data sets are often assembled from them. A class without a folder
    (in a split that lacks it) yields nothing.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(parent).relative_to(folder).as_posix()
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield name if inner == "." else f"{inner}/{name}"
