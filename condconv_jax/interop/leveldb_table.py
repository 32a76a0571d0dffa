"""The sorted table of keys and values that LevelDB writes, and TensorFlow its index in.

    data block ... | meta block ... | metaindex block | index block | footer

A block is entries, the offsets of those with a whole key ("restarts"), their count, and behind
it one byte for the compression and the checksum. An entry is three varints (bytes of its key
shared with the key before, bytes of its key that follow, bytes of its value), then those.
The file comes from a stranger: nothing in it is believed before it is checked.

Source: leveldb, doc/table_format.md and table/format.h.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from condconv_jax.crc32c import masked_crc32c

_FOOTER_BYTES = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TRAILER_BYTES = 5
# The index of 1,000 variables is about 50 kB. The limits keep a hostile file from taking long.
_MAX_FILE_BYTES = 4 << 20
_MAX_KEY_BYTES = 16 << 20


def is_table(file: Path) -> bool:
    """Whether the file ends as a table does."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _FOOTER_BYTES))
        footer = stream.read(_FOOTER_BYTES)
    return len(footer) == _FOOTER_BYTES and footer.endswith(_MAGIC)


def read_table(file: Path) -> list[tuple[bytes, bytes]]:
    """Returns the keys and values, in ascending order of the keys.

    Raises:
      ValueError: if the file is no such table, is compressed, or any of it is damaged.
    """
    if not is_table(file):
        raise ValueError(
            f"read_table: {file} does not end as a table does; it is cut short, or no index of a "
            "checkpoint: copy it again"
        )
    with file.open("rb") as stream:
        data = stream.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(
            f"read_table: {file} has more than the {_MAX_FILE_BYTES} bytes that an index may "
            "have; pass the checkpoint of one network"
        )
    try:
        return _pairs(data[:-_FOOTER_BYTES], data[-_FOOTER_BYTES:])
    except ValueError as error:
        raise ValueError(f"read_table: {file} {error}") from error


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns an unsigned number of at most 64 bits, 7 in each byte, and the position after it.

    Raises:
      ValueError: if the data ends before, or the number is longer.
    """
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + index + 1
    raise ValueError(f"is damaged: no number at byte {position}; copy it again")


def _pairs(data: bytes, footer: bytes) -> list[tuple[bytes, bytes]]:
    _, position = _handle(footer, 0)  # of the metaindex block, which holds nothing for us
    index, _ = _handle(footer, position)
    pairs: list[tuple[bytes, bytes]] = []
    key_bytes = 0
    end = 0
    for _, value in _entries(_block(data, *index)):
        (offset, size), _ = _handle(value, 0)
        if offset < end:
            raise ValueError("is damaged: its blocks are out of order; copy it again")
        end = offset + size
        for key, entry in _entries(_block(data, offset, size)):
            if pairs and key <= pairs[-1][0]:
                raise ValueError("is damaged: its keys are out of order; copy it again")
            pairs.append((key, entry))
            key_bytes += len(key)
            _check_key_bytes(key_bytes)
    return pairs


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """The offset and size of a block, and the position after them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes, offset: int, size: int) -> bytes:
    """The contents of a block, with their checksum verified."""
    end = offset + size
    if end + _TRAILER_BYTES > len(data):
        raise ValueError(
            f"is damaged: its block of {size} bytes at byte {offset} ends outside; copy it again"
        )
    stored = int.from_bytes(data[end + 1 : end + _TRAILER_BYTES], "little")
    if masked_crc32c(data[offset : end + 1]) != stored:
        raise ValueError(
            f"is damaged: its block at byte {offset} fails its checksum; copy it again"
        )
    if data[end]:
        raise ValueError(
            f"is compressed (type {data[end]}), which TensorFlow's checkpoints are not; save it "
            "with tf.train.Saver or tf.train.Checkpoint"
        )
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    damaged = "is damaged: an entry ends outside its block; copy it again"
    if len(block) < 4:
        raise ValueError(damaged)
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError(damaged)
    position = 0
    key = b""
    key_bytes = 0
    while position < end:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        value_bytes, position = read_varint(block, position)
        value = position + unshared
        if shared > len(key) or value + value_bytes > end:
            raise ValueError(damaged)
        key = key[:shared] + block[position:value]
        position = value + value_bytes
        key_bytes += len(key)
        _check_key_bytes(key_bytes)
        yield key, block[value:position]


def _check_key_bytes(key_bytes: int) -> None:
    """Refuses the keys that a few bytes each make long by sharing a long one."""
    if key_bytes > _MAX_KEY_BYTES:
        raise ValueError(
            f"has names of more than {_MAX_KEY_BYTES} bytes; pass the checkpoint of one network"
        )
