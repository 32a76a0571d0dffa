"""TensorFlow's checkpoint format V2 ("tensor bundle"), read without TensorFlow.

    PREFIX.index                 a table (`leveldb_table`): "" -> header, variable's name -> entry
    PREFIX.data-00000-of-00002   values one after another, little-endian, at the entries' offsets

Header and entries are protocol buffers. Nothing is unpickled or run. The files come from a
stranger: every length and offset is checked before it is used, no more memory is taken than the
files have bytes, and what is read has its checksum verified.

Source: tensorflow, core/util/tensor_bundle/tensor_bundle.h and core/protobuf/tensor_bundle.proto.
"""

import difflib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from condconv_jax.crc32c import masked_crc32c
from condconv_jax.interop.bundle_index import Entry, read_index
from condconv_jax.interop.leveldb_table import is_table

_MAX_CHECKPOINT_FILE_BYTES = 1 << 16


def list_tensors(prefix: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns the shape and the dtype's name of every tensor, by name.

    What is not numeric is listed too, with a dtype such as "string".

    Args:
      prefix: as in `read_tensors`.

    Raises:
      FileNotFoundError, ValueError: as `read_tensors` does of the index.
    """
    _, entries = read_index(_index_file(_find_prefix(Path(prefix))))
    return {
        name: (entry.shape, entry.dtype if isinstance(entry.dtype, str) else entry.dtype.name)
        for name, entry in entries.items()
    }


def read_tensors(prefix: str | Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint, by name.

    Args:
      prefix: what TensorFlow calls the checkpoint, such as ``model.ckpt-1000``; or one of its
        files; or a folder, of which the file ``checkpoint`` says the newest.
      names: those to read; None for all but what is not numeric, such as the description of
        the objects that TensorFlow 2 adds.

    Raises:
      FileNotFoundError: if there is no such checkpoint, or one of its files is not there.
      ValueError: if a file is damaged, of another format or version, big-endian or compressed,
        lacks one of the names, or a tensor to read is not numeric or saved in slices.
    Cost: the checksums take about 0.2 s for 100 MB.
    """
    path = _find_prefix(Path(prefix))
    shards, entries = read_index(_index_file(path))
    if names is None:
        chosen = {k: entry for k, entry in entries.items() if isinstance(entry.dtype, np.dtype)}
    else:
        _check_names(path, names, entries)
        chosen = {name: entries[name] for name in names}
    _check_sizes(path, shards, chosen)
    return {name: _read_tensor(path, shards, name, entry) for name, entry in chosen.items()}


def _find_prefix(path: Path) -> Path:
    """The prefix that a path stands for."""
    if path.name == "checkpoint" and path.is_file():
        path = path.parent
    if path.is_dir():
        path = _newest(path)
    else:
        path = path.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name))
    if _index_file(path).is_file():
        return path
    if path.is_file():
        if is_table(path):
            raise ValueError(
                f"tensor_bundle: {path} is in TensorFlow's checkpoint format V1; restore it "
                "with TensorFlow and save it with tf.train.Saver, which writes V2"
            )
        raise ValueError(
            f"tensor_bundle: {path} is no checkpoint of TensorFlow; pass the prefix of one, whose "
            "files end in .index and .data-00000-of-00001"
        )
    raise FileNotFoundError(
        f"tensor_bundle: {_index_file(path)} does not exist; pass the prefix of a checkpoint, its "
        ".index file or its folder"
    )


def _newest(folder: Path) -> Path:
    """The prefix that the file `checkpoint` of a folder names, or the only one in it."""
    file = folder / "checkpoint"
    if not file.is_file():
        found = sorted(item.name.removesuffix(".index") for item in folder.glob("*.index"))
        if len(found) == 1:
            return folder / found[0]
        raise FileNotFoundError(
            f"tensor_bundle: {folder} has no file 'checkpoint' to say which of its checkpoints is "
            f"meant; pass one of {', '.join(found) or '(there are none)'}"
        )
    with file.open("rb") as stream:
        text = stream.read(_MAX_CHECKPOINT_FILE_BYTES).decode("utf-8", "replace")
    match = re.search(r'^model_checkpoint_path: *"([^"\\\0\n]*[^"\\\0\n/])"', text, re.MULTILINE)
    if match is None:
        raise ValueError(
            f"tensor_bundle: {file} names no model_checkpoint_path; pass the prefix of one of the "
            "checkpoints beside it"
        )
    named = folder / match[1]  # as it is where the name is absolute
    # Where the folder was moved since, an absolute name means the file beside.
    return named if _index_file(named).is_file() else folder / named.name


def _index_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _shard_file(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}")


def _check_names(prefix: Path, names: Iterable[str], entries: Collection[str]) -> None:
    missing = [name for name in names if name not in entries]
    if missing:
        near = difflib.get_close_matches(missing[0], entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"read_tensors: {prefix} has {len(entries)} tensors, and none is named "
            f"{', '.join(map(repr, missing))}; list_tensors gives their names{hint}"
        )


def _check_sizes(prefix: Path, shards: int, chosen: dict[str, Entry]) -> None:
    """Refuses entries that the data files cannot hold, before memory is taken for them."""
    totals: dict[int, int] = {}
    for name, entry in chosen.items():
        if isinstance(entry.dtype, str):
            raise ValueError(
                f"read_tensors: {name!r} of {prefix} is of dtype {entry.dtype}, which is not "
                "supported; leave it out of names"
            )
        if entry.sliced:
            raise ValueError(
                f"read_tensors: {name!r} of {prefix} is a partitioned variable, saved in slices; "
                "save it without a partitioner, or leave it out of names"
            )
        file = _shard_file(prefix, entry.shard, shards)
        if not file.is_file():
            raise FileNotFoundError(
                f"read_tensors: {file} does not exist; copy all {shards} data files of {prefix}"
            )
        size = file.stat().st_size
        totals[entry.shard] = totals.get(entry.shard, 0) + entry.size
        if max(entry.offset + entry.size, totals[entry.shard]) > size:
            raise ValueError(
                f"read_tensors: {file} has {size} bytes, too few for {name!r}; it is cut short: "
                "copy it again"
            )


def _read_tensor(prefix: Path, shards: int, name: str, entry: Entry) -> np.ndarray:
    file = _shard_file(prefix, entry.shard, shards)
    data = np.fromfile(file, np.uint8, entry.size, offset=entry.offset)
    if data.size != entry.size or masked_crc32c(data) != entry.checksum:
        raise ValueError(
            f"read_tensors: {name!r} in {file} fails its checksum; copy the file again"
        )
    if entry.dtype == np.dtype(bool):
        return (data != 0).reshape(entry.shape)
    assert isinstance(entry.dtype, np.dtype)
    array = data.view(entry.dtype).reshape(entry.shape)
    return array.astype(entry.dtype.newbyteorder("="), copy=False)
