"""Pictures in a zip archive of class folders, read without unpacking it."""

import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from condconv_jax.data.class_folders import SPLIT_FOLDERS, inside, is_picture, list_samples
from condconv_jax.data.decoding import CorruptSampleError, decode_image
from condconv_jax.data.source import NamedSource, Sample, checked_index

# A member's local header: signature, 22 bytes that the directory repeats, lengths of its name and
# of its extra field. PKWARE, APPNOTE.TXT, section 4.3.7.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x1  # APPNOTE.TXT, section 4.4.4, bit 0


@dataclass(frozen=True, eq=False, repr=False)
class ZipFolderSource(NamedSource):
    """Members of an archive, read and decoded one at a time.

    Reading goes by position (`os.pread`), so that threads neither share a place in the file nor
    wait for each other, as they would in zipfile.

    Attributes:
      archive: the file.
      folder: the place in it that the members are named from, "" for all of it.
      files: names of members, one per sample.
      labels: int64 (n,), 0..len(class_names) - 1.
      class_names: one per class.
      name: what error messages call the source.
      members: int64 (n, 4), for each sample where its local header is, its compressed size, its
        checksum and its method.

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
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_file", os.open(self.archive, os.O_RDONLY))
        # Not at exit, when threads may still be reading.
        weakref.finalize(self, os.close, self._file).atexit = False

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        name = f"{self.archive}/{inside(self.folder, self.files[index])}"
        data = self._read(self.members[index].tolist(), name)
        return {"image": decode_image(data, name), "label": int(self.labels[index])}

    def _read(self, member: list[int], name: str) -> bytes:
        start, size, checksum, method = member
        header = os.pread(self._file, _LOCAL_HEADER.size, start)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_SIGNATURE):
            raise _damaged(name, f"there is no member at byte {start}")
        _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        data = os.pread(self._file, size, start + len(header) + name_size + extra_size)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompress(data, wbits=-zlib.MAX_WBITS)  # no header of its own
            except zlib.error as error:
                raise _damaged(name, str(error)) from error
        if zlib.crc32(data) != checksum:
            raise _damaged(name, "its checksum is another one")
        return data


def open_zip_folder(split: str, archive: Path) -> ZipFolderSource:
    """Returns the pictures of a zip archive; see `open_folder`, which calls this.

    A single folder around everything (its name is often the archive's) is looked through, unless
    it is a split folder or holds pictures itself, which makes it a class.

    Raises:
      ValueError: naming `open_folder`, if it is not an archive, a picture is encrypted or packed
        otherwise than stored or deflated, or the folders are not what `list_samples` wants.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"open_folder: {archive} cannot be read as a zip archive: {error}; copy it again"
        ) from error
    tree = _ZipTree(archive, infos)
    listing = list_samples(tree, split)
    folder = inside(tree.prefix, listing.folder)
    members = [tree.members[inside(folder, file)] for file in listing.files]
    for info in members:
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            encrypted = bool(info.flag_bits & _ENCRYPTED)
            how = "encrypted" if encrypted else f"packed by the method {info.compress_type}"
            raise ValueError(
                f"open_folder: {info.filename} in {archive} is {how}; wants members that are "
                f"stored or deflated; pack the archive again, with zip -0"
            )
    return ZipFolderSource(
        archive=archive,
        folder=folder,
        files=listing.files,
        labels=listing.labels,
        class_names=listing.class_names,
        name=f"{split} of {archive}",
        members=np.array(
            [(m.header_offset, m.compress_size, m.CRC, m.compress_type) for m in members], np.int64
        ).reshape(-1, 4),
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
        self._pictures: dict[str, list[str]] = {}
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
            if is_picture(name):
                if info.filename not in self.members:
                    self._pictures.setdefault(place, []).append(name)
                self.members[info.filename] = info
        self.prefix = ""
        alone = next(iter(self._folders[""]), "")
        around_all = len(self._folders[""]) == 1 and alone not in self._pictures
        if around_all and alone not in SPLIT_FOLDERS and self._folders[alone]:
            self.prefix = alone
        self.label = inside(str(archive), self.prefix)

    def folders(self, place: str) -> list[str]:
        return sorted(self._folders[inside(self.prefix, place)])

    def pictures(self, place: str) -> Iterator[str]:
        top = inside(self.prefix, place)
        waiting = [""] if top in self._folders else []
        while waiting:
            inner = waiting.pop()
            here = inside(top, inner)
            for name in self._pictures.get(here, ()):
                yield inside(inner, name)
            waiting += [inside(inner, name) for name in self._folders[here]]


def _damaged(name: str, what: str) -> CorruptSampleError:
    return CorruptSampleError(
        f"ZipFolderSource: {name} is damaged: {what}; copy the archive again, or pack it anew"
    )
