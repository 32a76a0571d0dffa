"""Pictures in a zip archive of class folders, read without unpacking it."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from condconv_jax.data.class_folders import SPLIT_FOLDERS, inside, is_sample, list_samples
from condconv_jax.data.decoding import decode_image
from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.data.zip_members import MemberReader, list_members, tabulate_members


@dataclass(frozen=True, eq=False, repr=False)
class ZipFolderSource(NamedSource[Sample]):
    """Members of an archive, read and decoded one at a time.

    Attributes:
      archive: the file.
      folder: the place in it that the members are named from, "" for all of it.
      files: names of members, one per sample.
      labels: int64 (n,), 0..len(class_names) - 1.
      class_names: one per class.
      name: what error messages call the source.
      members: int64 (n, 4), see `tabulate_members`.

    Raises:
      CorruptSampleError: on reading, if a member is damaged or a picture cannot be decoded.
    """

    archive: Path
    folder: str
    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    members: np.ndarray
    _reader: MemberReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reader", MemberReader(self.archive))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        name = f"{self.archive}/{inside(self.folder, self.files[index])}"
        data = self._reader.read(self.members[index], name)
        return {"image": decode_image(data, name), "label": int(self.labels[index])}


def open_zip_folder(split: str, archive: Path) -> ZipFolderSource:
    """Returns the pictures of a zip archive; see `open_folder`, which calls this.

    A single folder around everything (its name is often the archive's) is looked through, unless
    it is a split folder or holds pictures itself, which makes it a class.

    Raises:
      ValueError: naming `open_folder`, if it is not an archive, a picture is encrypted or packed
        otherwise than stored or deflated, or the folders are not what `list_samples` wants.
    """
    tree = _ZipTree(archive, list_members("open_folder", archive))
    listing = list_samples(tree, split)
    folder = inside(tree.prefix, listing.folder)
    members = [tree.members[inside(folder, file)] for file in listing.files]
    return ZipFolderSource(
        archive=archive,
        folder=folder,
        files=listing.files,
        labels=listing.labels,
        class_names=listing.class_names,
        name=f"{split} of {archive}",
        members=tabulate_members("open_folder", archive, members),
    )


class _ZipTree:
    """The `Tree` of an archive.

    Attributes:
      members: the visible files by their full names; of two by one name the last, as unzipping
        would leave it.
      prefix: the folder around everything, or "".
    """

    def __init__(self, archive: Path, infos: list[zipfile.ZipInfo]):
        self.members: dict[str, zipfile.ZipInfo] = {}
        self._folders: dict[str, set[str]] = {"": set()}
        self._samples: dict[str, list[str]] = {}
        for info in infos:
            *folders, name = info.filename.split("/")
            # macOS packs what it knows about files into a folder __MACOSX beside theirs.
            if any(part.startswith(".") for part in folders) or folders[:1] == ["__MACOSX"]:
                continue
            place = ""
            for part in folders:
                self._folders[place].add(part)
                place = inside(place, part)
                self._folders.setdefault(place, set())
            if is_sample(name):
                if info.filename not in self.members:
                    self._samples.setdefault(place, []).append(name)
                self.members[info.filename] = info
        self.prefix = ""
        alone = next(iter(self._folders[""]), "")
        around_all = len(self._folders[""]) == 1 and alone not in self._samples
        if around_all and alone not in SPLIT_FOLDERS and self._folders[alone]:
            self.prefix = alone
        self.label = inside(str(archive), self.prefix)

    def folders(self, place: str) -> list[str]:
        return sorted(self._folders[inside(self.prefix, place)])

    def samples(self, place: str) -> Iterator[str]:
        top = inside(self.prefix, place)
        waiting = [""] if top in self._folders else []
        while waiting:
            inner = waiting.pop()
            here = inside(top, inner)
            for name in self._samples.get(here, ()):
                yield inside(inner, name)
            waiting += [inside(inner, name) for name in self._folders[here]]
