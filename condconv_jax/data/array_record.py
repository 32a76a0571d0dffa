"""ArrayRecord files: what the reader's errors mean.

The reader raises a RuntimeError for whatever goes wrong and mostly names neither file nor record.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from condconv_jax.data.decoding import CorruptSampleError


@dataclass(frozen=True, eq=False, repr=False)
class ArrayRecordShards:
    """The records of several files, one after another; safe to read from several threads.

    Attributes:
      records: of all files, as bytes, as the reader gives them.
      files: the shards.
      lengths: how many records each is said to hold.

    Raises:
      CorruptSampleError: on reading, if a record is damaged, but not the file as a whole.
      FileNotFoundError: on reading, if a file is not there.
      OSError: on reading, if a file cannot be opened: it is cut short, say.
      ValueError: on reading a record that is not there, if a file holds another number of them.
    """

    records: Sequence[bytes]
    files: tuple[str, ...]
    lengths: tuple[int, ...]
    _ends: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", tuple(itertools.accumulate(self.lengths)))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> bytes:
        """Returns the data of record 0..len - 1."""
        cause: RuntimeError | None = None
        try:
            # Of some files that were cut short the reader gives empty records instead of an error.
            if record := self.records[index]:
                return record
        except RuntimeError as error:
            cause = error
        raise self._explained(index, cause) from cause

    def _explained(self, index: int, cause: RuntimeError | None) -> Exception:
        """Returns what to raise for a record that could not be read."""
        shard = bisect.bisect_right(self._ends, index)
        file = self.files[shard]
        again = "copy the file again, or prepare the data anew"
        try:
            count = _count_records(file)
        except RuntimeError as error:
            if "No such file" in str(error):
                return FileNotFoundError(
                    f"ArrayRecordShards: {file} is not there; copy the missing file, or prepare "
                    f"the data anew"
                )
            why = str(error) or "its end is missing"
            return OSError(f"ArrayRecordShards: {file} cannot be opened ({why}); {again}")
        if count != self.lengths[shard]:
            return ValueError(
                f"ArrayRecordShards: {file} holds {count} records, dataset_info.json says "
                f"{self.lengths[shard]}; copy both again, or prepare the data anew"
            )
        record = index - (self._ends[shard - 1] if shard else 0)
        return CorruptSampleError(
            f"ArrayRecordShards: record {record} of {file} is damaged ({cause}); {again}"
        )


def _count_records(file: str) -> int:
    # Here, not above: no other source needs it.
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(file)
    count = reader.num_records()
    reader.close()  # raises if the file was opened in spite of its damage
    return int(count)
