"""Members of a zip archive: listed once, then read by position, from any number of threads."""

import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from condconv_jax.data.decoding import CorruptSampleError

# A member's local header: signature, 22 bytes that the directory repeats, lengths of its name and
# of its extra field. PKWARE, APPNOTE.TXT, section 4.3.7.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x1  # APPNOTE.TXT, section 4.4.4, bit 0


def list_members(function: str, archive: Path) -> list[zipfile.ZipInfo]:
    """Returns the members of an archive, folders included, by the names that unzipping gives them.

    Raises:
      ValueError: naming `function`, if the file is not an archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"{function}: {archive} cannot be read as a zip archive: {error}; copy it again"
        ) from error
    for member in members:
        # Some packers keep the "./" of what they were asked for.
        member.filename = "/".join(part for part in member.filename.split("/") if part != ".")
    return members


def tabulate_members(
    function: str, archive: Path, members: Sequence[zipfile.ZipInfo]
) -> np.ndarray:
    """Returns what `MemberReader` wants to know of each member, int64 (n, 4).

    The columns are where its local header is, its compressed size, its checksum and its method.

    Raises:
      ValueError: naming `function`, if a member is encrypted or packed otherwise than stored or
        deflated.
    """
    for info in members:
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            encrypted = bool(info.flag_bits & _ENCRYPTED)
            how = "encrypted" if encrypted else f"packed by the method {info.compress_type}"
            raise ValueError(
                f"{function}: {info.filename} in {archive} is {how}; wants members that are "
                f"stored or deflated; pack the archive again, with zip -0"
            )
    return np.array(
        [(m.header_offset, m.compress_size, m.CRC, m.compress_type) for m in members], np.int64
    ).reshape(-1, 4)


@dataclass(frozen=True, eq=False)
class MemberReader:
    """An open archive.

    Reading goes by position (`os.pread`), so that threads neither share a place in the file nor
    wait for each other, as they would in zipfile. The file is closed with the object.

    Attributes:
      archive: the file.
    """

    archive: Path
    _file: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_file", os.open(self.archive, os.O_RDONLY))
        # Not at exit, when threads may still be reading.
        weakref.finalize(self, os.close, self._file).atexit = False

    def read(self, member: np.ndarray, name: str) -> bytes:
        """Returns the bytes of a member.

        Args:
          member: its row of `tabulate_members`.
          name: what the error message calls it.

        Raises:
          CorruptSampleError: if it is damaged.
        """
        start, size, checksum, method = member.tolist()
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


def _damaged(name: str, what: str) -> CorruptSampleError:
    return CorruptSampleError(
        f"MemberReader: {name} is damaged: {what}; copy the archive again, or pack it anew"
    )
