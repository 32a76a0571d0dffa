"""How class folders become samples, whatever the folders are in: <class>/*, <split>/<class>/*."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from condconv_jax.names import unknown_name

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SOUND_EXTENSIONS = (".wav",)
SPLIT_FOLDERS = ("train", "val", "validation", "test")


class Tree(Protocol):
    """Folders and pictures; places are relative, with / on every system, the root is ""."""

    @property
    def label(self) -> str:
        """What messages call the root."""
        ...

    def folders(self, place: str) -> list[str]:
        """Names of the visible folders directly in a place, sorted."""
        ...

    def samples(self, place: str) -> Iterator[str]:
        """Visible pictures and sounds in a place at any depth, named from there."""
        ...


@dataclass(frozen=True)
class Listing:
    """The samples of a split.

    Attributes:
      folder: the place that holds the class folders.
      files: pictures named from there, one per sample.
      labels: int64 (n,).
      class_names: one per class.
    """

    folder: str
    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]


def is_picture(name: str) -> bool:
    """Returns whether a file is taken for a picture, by its name without folders."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def is_sample(name: str) -> bool:
    """Returns whether a file is taken for a picture or a sound, by its name without folders."""
    sound = name.lower().endswith(SOUND_EXTENSIONS) and not name.startswith(".")
    return sound or is_picture(name)


def list_samples(tree: Tree, split: str) -> Listing:
    """Returns the samples of a split in the mixed order that `open_folder` describes.

    Sounds are samples where there is no picture.

    Raises:
      ValueError: naming `open_folder`, if the split is not there, there is no class folder or no
        picture, or the split has a class folder that `train` lacks.
    """
    splits = [name for name in tree.folders("") if name in SPLIT_FOLDERS]
    if split not in (splits or ("train",)):
        raise unknown_name("open_folder", f"split of {tree.label}", split, splits or ("train",))
    folder = split if splits else ""
    class_names = _class_names(tree, split, "train" if "train" in splits else folder, folder)
    found = [
        (f"{class_name}/{file}", label)
        for label, class_name in enumerate(class_names)
        for file in tree.samples(inside(folder, class_name))
    ]
    # Sounds beside pictures are not samples: they may be what the pictures were cut from.
    pictures = [(file, label) for file, label in found if is_picture(file.rpartition("/")[2])]
    found = pictures or found
    if not found:
        raise ValueError(
            f"open_folder: no picture in the {len(class_names)} class folders of "
            f"{inside(tree.label, folder)}; wants files ending in {', '.join(EXTENSIONS)}, or "
            f"{', '.join(SOUND_EXTENSIONS)} for sounds (or capitals)"
        )
    found.sort(key=lambda item: hashlib.blake2b(os.fsencode(item[0]), digest_size=8).digest())
    return Listing(
        folder=folder,
        files=tuple(file for file, _ in found),
        labels=np.array([label for _, label in found], dtype=np.int64),
        class_names=class_names,
    )


def inside(place: str, name: str) -> str:
    """Returns the place of `name` in `place`; either may be ""."""
    return f"{place}/{name}" if place and name else place or name


def _class_names(tree: Tree, split: str, reference: str, folder: str) -> tuple[str, ...]:
    names = tree.folders(reference)
    where = inside(tree.label, reference)
    if not names:
        raise ValueError(
            f"open_folder: no class folder in {where}; wants one folder per class with its "
            f"pictures inside"
        )
    strangers = sorted(set(tree.folders(folder)) - set(names))
    if strangers:
        raise ValueError(
            f"open_folder: {inside(tree.label, folder)} has class folders that {where} lacks: "
            f"{', '.join(strangers[:5])}{', ...' if len(strangers) > 5 else ''}; sort the "
            f"pictures of {split} into the classes of train"
        )
    return tuple(names)
