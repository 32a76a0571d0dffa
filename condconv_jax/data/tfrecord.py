"""TFRecord files with random access: shards indexed by their framing, as they are needed.

A record is framed as (TensorFlow, tensorflow/core/lib/io/record_writer.h)

  uint64 length | uint32 masked CRC-32C of length | data | uint32 masked CRC-32C of data

all little-endian. There is no index in the file: the places of records are found by going from
length to length once, which reads 12 bytes for every record.
"""

import bisect
import itertools
import os
import struct
import threading
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import numpy as np

from condconv_jax.crc32c import masked_crc32c, masked_crc32c_of_rows
from condconv_jax.data.decoding import CorruptSampleError

_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
# Headers whose checksums are computed at once, which is ten times as fast as one by one.
_BLOCK = 4096


@dataclass(frozen=True, eq=False, repr=False)
class TfrecordShards:
    """The records of several files, one after another; safe to read from several threads.

    A file is indexed when its first record is asked for, by one thread. No file stays open, for
    there may be thousands.

    Attributes:
      files: the shards.
      lengths: how many records each is said to hold.

    Raises:
      ValueError: if there are not as many lengths as files. On reading: if the framing of a file
        is damaged, it ends in the middle of a record, or it holds another number of records.
      CorruptSampleError: on reading, if the framing is intact but the data of the record is not.
      FileNotFoundError: on reading, if a file is not there.
    """

    files: tuple[Path, ...]
    lengths: tuple[int, ...]
    _ends: tuple[int, ...] = field(init=False)
    _indices: dict[int, np.ndarray] = field(init=False, default_factory=dict)
    _locks: tuple[threading.Lock, ...] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.files) != len(self.lengths):
            raise ValueError(
                f"TfrecordShards: got {len(self.files)} files and {len(self.lengths)} lengths; "
                f"wants one length per file"
            )
        object.__setattr__(self, "_ends", tuple(itertools.accumulate(self.lengths)))
        object.__setattr__(self, "_locks", tuple(threading.Lock() for _ in self.files))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """Returns the data of record 0..len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"TfrecordShards: index {index} is outside its {len(self)} records")
        shard = bisect.bisect_right(self._ends, index)
        record = index - (self._ends[shard - 1] if shard else 0)
        start, stop = self._index(shard)[record : record + 2].tolist()
        file = self.files[shard]
        with _open(file) as opened:
            framed = os.pread(opened.fileno(), stop - start, start)
        data, checksum = framed[_LENGTH.size : -_CHECKSUM.size], framed[-_CHECKSUM.size :]
        if len(framed) != stop - start or _CHECKSUM.unpack(checksum)[0] != masked_crc32c(data):
            raise CorruptSampleError(
                f"TfrecordShards: record {record} of {file} is damaged: its checksum is another "
                f"one; copy the file again, or prepare the data anew"
            )
        return data

    def _index(self, shard: int) -> np.ndarray:
        if (known := self._indices.get(shard)) is not None:
            return known
        with self._locks[shard]:
            if shard not in self._indices:
                places = index_records(self.files[shard])
                if len(places) - 1 != self.lengths[shard]:
                    raise ValueError(
                        f"TfrecordShards: {self.files[shard]} holds {len(places) - 1} records, "
                        f"dataset_info.json says {self.lengths[shard]}; copy both again, or "
                        f"prepare the data anew"
                    )
                self._indices[shard] = places
            return self._indices[shard]


def index_records(file: Path) -> np.ndarray:
    """Returns where the records of a file begin, and the last one ends, as int64 (n + 1,).

    Raises:
      ValueError: if a length does not fit its checksum, or the file ends in the middle of a record.
      FileNotFoundError: if the file is not there.
    Cost: one read of 12 bytes per record, 1.4 us (one core of an Intel Xeon, file in memory); the
      data are not read.
    """
    places = [0]
    with _open(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        while size - places[-1] >= _LENGTH.size:
            first = len(places) - 1
            headers = _follow_lengths(opened.fileno(), places, size)
            fits = masked_crc32c_of_rows(headers[:, :2]) == headers[:, 2]
            if not fits.all():
                raise ValueError(
                    f"TfrecordShards: the length of record {first + int(fits.argmin())} of {file} "
                    f"does not fit its checksum, so that what follows cannot be found; copy the "
                    f"file again, or prepare the data anew"
                )
    if places[-1] > size:
        raise _cut_short(file, len(places) - 2, size)
    if places[-1] < size:
        raise _cut_short(file, len(places) - 1, size)
    return np.array(places, np.int64)


def _follow_lengths(file: int, places: list[int], size: int) -> np.ndarray:
    """Appends the places behind the next records, as their lengths say, and returns the headers.

    The lengths are not checked yet, so that no more than a block of records is followed.

    Returns:
      uint32 (n, 3): both halves of the length, and its checksum.
    """
    headers: list[bytes] = []
    while size - places[-1] >= _LENGTH.size and len(headers) < _BLOCK:
        header = os.pread(file, _LENGTH.size, places[-1])
        headers.append(header)
        length, _ = _LENGTH.unpack(header)
        places.append(places[-1] + _LENGTH.size + length + _CHECKSUM.size)
    return np.frombuffer(b"".join(headers), "<u4").reshape(-1, 3)


def _cut_short(file: Path, record: int, size: int) -> ValueError:
    return ValueError(
        f"TfrecordShards: {file} ends in the middle of record {record}, at byte {size}; copy the "
        f"file again, or prepare the data anew"
    )


def _open(file: Path) -> FileIO:
    try:
        return file.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"TfrecordShards: {file} is not there; copy the missing file, or prepare the data anew"
        ) from error
