"""Picture files by name, in a folder or in an archive."""

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from condconv_jax.data.zip_members import MemberReader, list_members, tabulate_members


class PictureFiles(Protocol):
    """Bytes of numbered picture files; reading is safe from several threads."""

    def name(self, index: int) -> str:
        """Returns what error messages call a file."""
        ...

    def read(self, index: int) -> bytes:
        """Returns a file's bytes."""
        ...


@dataclass(frozen=True, eq=False)
class FolderPictures:
    """Files of a folder.

    Attributes:
      folder: the place the files are named from.
      files: their names.

    Raises:
      FileNotFoundError: on reading, if a file was deleted since the folder was listed.
    """

    folder: Path
    files: Sequence[str]

    def name(self, index: int) -> str:
        """Returns the file's path."""
        return str(self.folder / self.files[index])

    def read(self, index: int) -> bytes:
        """Returns the file's bytes."""
        try:
            return (self.folder / self.files[index]).read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"FolderPictures: {self.name(index)} was deleted since the folder was opened; open "
                f"it again"
            ) from error


@dataclass(frozen=True, eq=False)
class ZipPictures:
    """Members of an archive.

    Attributes:
      archive: the file.
      folder: the place in it that the members are named from.
      files: their names.
      members: int64 (n, 4), see `tabulate_members`.

    Raises:
      CorruptSampleError: on reading, if a member is damaged.
    """

    archive: Path
    folder: str
    files: Sequence[str]
    members: np.ndarray
    _reader: MemberReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reader", MemberReader(self.archive))

    def name(self, index: int) -> str:
        """Returns the member's name after its archive's path."""
        return f"{self.archive}/{self.folder}/{self.files[index]}"

    def read(self, index: int) -> bytes:
        """Returns the member's bytes."""
        return self._reader.read(self.members[index], self.name(index))


def find_pictures(root: Path, split: str, files: Sequence[str]) -> PictureFiles:
    """Returns the pictures of a split; see `open_coco`, which calls this.

    Raises:
      FileNotFoundError: naming `open_coco`, if there is no place for pictures, or pictures are
        missing in it.
      ValueError: if an archive cannot be read.
    """
    folders = (root / split, root / "images" / split)
    archives = (root / "images.zip", root / f"{split}.zip")
    for folder in folders:
        if folder.is_dir():
            _check_complete(str(folder), files, _listed(folder, files))
            return FolderPictures(folder, files)
    for archive in archives:
        if archive.is_file():
            found = {info.filename: info for info in list_members("open_coco", archive)}
            wanted = [f"{split}/{file}" for file in files]
            _check_complete(str(archive), wanted, found)
            chosen = [found[name] for name in wanted]
            members = tabulate_members("open_coco", archive, chosen)
            return ZipPictures(archive, split, files, members)
    places = ", ".join(map(str, (*folders, *archives)))
    raise FileNotFoundError(
        f"open_coco: there are no pictures of the split {split!r} in {root}; put them into one of "
        f"{places}"
    )


def _listed(folder: Path, files: Sequence[str]) -> set[str]:
    """Returns the names of what is there, of the folders that the files lie in.

    Listing takes one call for many files; asking for each of them is slow on network drives.
    """
    found = set()
    for inner in {os.path.dirname(file) for file in files}:
        if (folder / inner).is_dir():
            found |= {os.path.join(inner, name) for name in os.listdir(folder / inner)}
    return found


def _check_complete(place: str, files: Sequence[str], found: Container[str]) -> None:
    missing = [file for file in files if file not in found]
    if missing:
        raise FileNotFoundError(
            f"open_coco: {missing[0]} is not in {place}; {len(missing)} of {len(files)} pictures "
            f"are missing there; copy them, or take them out of the annotation file"
        )
