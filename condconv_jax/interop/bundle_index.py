"""The index of a TensorFlow checkpoint: what its tensors are and where they lie.

The values of its table are protocol buffers, of which these fields are read:

    BundleHeaderProto  1 number of data files, 2 endianness, 3 version (2 least that can read it)
    BundleEntryProto   1 dtype, 2 shape (2 axes (1 size)), 3 data file, 4 offset, 5 size in bytes,
                       6 masked CRC-32C, 7 slices of a partitioned variable

Source: tensorflow, core/protobuf/tensor_bundle.proto and core/framework/tensor_shape.proto.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from condconv_jax.interop.leveldb_table import read_table, read_varint

# tensorflow, core/framework/types.proto; those of NumPy and bfloat16, as they are on disk.
_DTYPES: dict[int, Any] = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 8: "<c8", 9: "<i8", 10: "|b1",
    14: jnp.bfloat16, 17: "<u2", 18: "<c16", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_OTHER_DTYPES = {7: "string", 20: "resource", 21: "variant"}
_VERSION = 1  # tensor_bundle.h, kTensorBundleVersion
_MAX_AXES = 32


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where and what a tensor is."""

    dtype: str | np.dtype  # a name for what is not numeric
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


def read_index(file: Path) -> tuple[int, dict[str, Entry]]:
    """Returns the number of data files, and the entries by name.

    Raises:
      ValueError: if the file is damaged, or of another format, endianness or version.
    """
    pairs = read_table(file)
    try:
        if not pairs or pairs[0][0] != b"":
            raise ValueError("has no header; it is the table of something else than a checkpoint")
        shards = _parse_header(pairs[0][1])
        entries = {}
        for key, value in pairs[1:]:
            # Slices of a partitioned variable, of which there is an entry by its name as well,
            # have keys that begin with a zero (core/util/saved_tensor_slice_util.cc).
            if not key.startswith(b"\0"):
                name = key.decode("utf-8", "surrogateescape")
                entries[name] = _parse_entry(name, value, shards)
    except ValueError as error:
        raise ValueError(f"read_index: {file} {error}") from error
    return shards, entries


def _parse_header(message: bytes) -> int:
    """The number of data files."""
    header = dict(_fields(message))
    shards = _number(header.get(1, 0))
    if _number(header.get(2, 0)):
        raise ValueError("is big-endian; save it on a little-endian machine")
    version = _number(dict(_fields(_bytes(header.get(3, b"")))).get(2, 0))
    if version > _VERSION:
        raise ValueError(
            f"wants a reader of version {version}, this one is {_VERSION}; save it with "
            "tf.train.Saver of TensorFlow 1 or 2"
        )
    if not 1 <= shards <= 99_999:
        raise ValueError(f"is damaged: it counts {shards} data files; copy it again")
    return shards


def _parse_entry(name: str, message: bytes, shards: int) -> Entry:
    fields = list(_fields(message))
    last = dict(fields)
    axes = [_bytes(axis) for number, axis in _fields(_bytes(last.get(2, b""))) if number == 2]
    shape = tuple(_number(dict(_fields(axis)).get(1, 0)) for axis in axes)
    code, shard, offset, size, checksum = (_number(last.get(key, 0)) for key in (1, 3, 4, 5, 6))
    known = _DTYPES.get(code)
    dtype = _OTHER_DTYPES.get(code, f"number {code}") if known is None else np.dtype(known)
    sliced = any(number == 7 for number, _ in fields)
    if code < 1 or shard >= shards or len(shape) > _MAX_AXES:
        raise ValueError(
            f"is damaged: {name!r} is of dtype {code} with {len(shape)} axes in data file {shard} "
            f"of {shards}; copy it again"
        )
    if isinstance(dtype, np.dtype) and not sliced:
        items = math.prod(shape)
        # NumPy multiplies the other axes even where one has size 0.
        too_large = math.prod(max(1, length) for length in shape) * dtype.itemsize >= 1 << 62
        if too_large or items * dtype.itemsize != size:
            raise ValueError(
                f"is damaged: {name!r} of shape {shape} and {dtype.name} has {size} bytes; copy it "
                "again"
            )
    return Entry(dtype, shape, shard, offset, size, checksum, sliced)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer by number; submessages as bytes."""
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, position = read_varint(message, position)
        else:
            if wire == 2:
                size, position = read_varint(message, position)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ValueError(f"is damaged: a field has wire type {wire}; copy it again")
            value = message[position : position + size]
            position += size
            if position > len(message):
                raise ValueError(f"is damaged: field {number} ends outside; copy it again")
            if wire != 2:
                value = int.from_bytes(value, "little")
        yield number, value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int) or value >> 63:
        raise ValueError("is damaged: a field is not a number of 0 or more; copy it again")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("is damaged: a field is a number; copy it again")
    return value
