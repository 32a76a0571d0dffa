"""Pictures in NumPy .npz files, in three layouts told apart by the arrays present.

strips  `strips`, `offsets`, and labels `fine` (and `coarse`): pictures of one square size on top
        of one another in lossless WebP (or PNG) strips, as CIFAR-100 is packed in half its size.
jpeg    `jpeg`, `offsets`, `labels` (and `coarse`): picture files one after another, decoded when
        read.
plain   `<split>_x`, `<split>_y`, or, in a file per split, `x`, `y`: uint8 pictures, integer labels;
        `<split>_coarse`, or `coarse`, where there are coarser ones.

Class names come from `names` (`fine_names` of strips; `coarse_names`); without, classes are
numbered, up to the largest label in all files of the folder. Nothing is ever unpickled: a file from
a stranger can be wrong, but cannot run code.
"""

import contextlib
import functools
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from condconv_jax.data.arrays import (
    ArraySource,
    EncodedSource,
    checked_offsets,
    numbered_names,
    text_names,
)
from condconv_jax.data.decoding import decode_image
from condconv_jax.data.source import ConcatenatedSource, Source
from condconv_jax.names import unknown_name

Arrays = Mapping[str, np.ndarray]

_LABELS = ("fine", "coarse")


def open_npz(split: str, *, path: str = "", labels: str = "fine") -> Source:
    """Returns one split of a data set kept in .npz files.

    Args:
      split: with a folder, the files `<split>.npz` or `<split>_*.npz` in it, the latter joined
        in the order of their names; with a file, its arrays `<split>_x` and `<split>_y`.
      path: the folder or the file.
      labels: "fine" or "coarse"; which to use where there are both.

    Raises:
      FileNotFoundError: if the path does not exist.
      ValueError: if the split is not there, a file is no .npz, holds none of the three layouts,
        no such labels, or Python objects, or its arrays disagree.
    """
    if labels not in _LABELS:
        raise unknown_name("open_npz", "kind of labels", labels, _LABELS)
    if not path:
        raise ValueError("open_npz: got no path; pass the folder or the .npz file to read")
    place = Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(
            f"open_npz: {place} does not exist; pass the folder or the .npz file to read"
        )
    if place.is_file():
        return _split_of_file(place, split, labels)
    files = _files_of_split(place, split)
    numbered = functools.cache(lambda: _numbered_names(place, labels))
    sources = [
        _source(_read(file), f"{file.name} of {place}", split, labels, numbered) for file in files
    ]
    if len(sources) == 1:
        return sources[0]
    return ConcatenatedSource(sources, f"{split} of {place}")


def _files_of_split(folder: Path, split: str) -> list[Path]:
    whole = folder / f"{split}.npz"
    if whole.is_file():
        return [whole]
    present = _files_of(folder)
    parts = [file for file in present if file.name.startswith(f"{split}_")]
    if not parts:
        listed = ", ".join(file.name for file in present) or "no .npz file"
        raise ValueError(
            f"open_npz: {folder} has no {split}.npz and no {split}_*.npz, but {listed}; pass a "
            f"split that is there, or as path one file that holds all splits"
        )
    return parts


def _files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.npz") if not file.name.startswith("."))


def _split_of_file(file: Path, split: str, labels: str) -> Source:
    arrays = _read(file)
    splits = sorted(key[:-2] for key in arrays if key.endswith("_x") and f"{key[:-2]}_y" in arrays)
    if not splits:
        raise ValueError(
            f"open_npz: {file} holds {_listed(arrays)}, not the splits of a data set as "
            f"<split>_x and <split>_y; for a file of one split pass its folder as path and "
            f"split={file.stem!r}"
        )
    if split not in splits:
        raise unknown_name("open_npz", f"split of {file}", split, splits)
    key, names_key = ("coarse", "coarse_names") if labels == "coarse" else ("y", "names")
    every_label = [_labels(arrays, f"{name}_{key}", str(file)).ravel() for name in splits]
    names = _class_names(arrays, names_key, lambda: _numbered(every_label))
    targets = arrays[f"{split}_{key}"]
    return ArraySource(arrays[f"{split}_x"], targets, names, f"{split} of {file.name}")


def _source(
    arrays: Arrays, name: str, split: str, labels: str, numbered: Callable[[], tuple[str, ...]]
) -> Source:
    if {"strips", "offsets", labels} <= arrays.keys():
        names = _class_names(arrays, f"{labels}_names", numbered)
        return ArraySource(_decode_strips(arrays, name), arrays[labels], names, name)
    coarse = labels == "coarse"
    names_key = "coarse_names" if coarse else "names"
    if {"jpeg", "offsets", "labels"} <= arrays.keys():
        targets = _labels(arrays, "coarse" if coarse else "labels", name)
        names = _class_names(arrays, names_key, numbered)
        return EncodedSource(arrays["jpeg"], arrays["offsets"], targets, names, name)
    for prefix in ("", f"{split}_"):
        if {f"{prefix}x", f"{prefix}y"} <= arrays.keys():
            targets = _labels(arrays, f"{prefix}{'coarse' if coarse else 'y'}", name)
            names = _class_names(arrays, names_key, numbered)
            return ArraySource(arrays[f"{prefix}x"], targets, names, name)
    raise ValueError(
        f"open_npz: {name} holds {_listed(arrays)}; wants one of the layouts (strips, offsets, "
        f"{labels}), (jpeg, offsets, labels), (x, y) or ({split}_x, {split}_y)"
    )


def _decode_strips(arrays: Arrays, name: str) -> np.ndarray:
    """Returns all pictures, uint8 (n, w, w, 3).

    At once: a strip is much too much work for one picture, and 50,000 CIFAR pictures take 154 MB.
    """
    offsets = checked_offsets("open_npz", arrays["strips"], arrays["offsets"], name)
    data = np.ascontiguousarray(arrays["strips"]).data
    pictures = []
    for number, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        strip = decode_image(data[start:stop], f"strip {number} of {name}")
        height, width, _ = strip.shape
        if height % width:
            raise ValueError(
                f"open_npz: strip {number} of {name} is {height} rows by {width} columns; wants "
                f"square pictures on top of one another"
            )
        pictures.append(strip.reshape(-1, width, width, 3))
    widths = sorted({block.shape[1] for block in pictures})
    if len(widths) != 1:
        raise ValueError(
            f"open_npz: the strips of {name} are {widths} columns wide; wants pictures of one size"
        )
    return np.concatenate(pictures)


def _labels(arrays: Arrays, key: str, name: str) -> np.ndarray:
    if key not in arrays:
        raise ValueError(
            f"open_npz: {name} holds {_listed(arrays)} and no {key}; pass labels='fine', or a file "
            "with coarse labels"
        )
    return arrays[key]


def _class_names(
    arrays: Arrays, key: str, numbered: Callable[[], tuple[str, ...]]
) -> tuple[str, ...]:
    return text_names(arrays[key]) if key in arrays else numbered()


def _numbered_names(folder: Path, labels: str) -> tuple[str, ...]:
    """Numbers for the classes of all splits, of which one may lack the last classes."""
    wanted = ("coarse",) if labels == "coarse" else ("fine", "labels", "y")
    found = []
    for file in _files_of(folder):
        with _opened(file) as loaded:
            found += [loaded[key] for key in loaded.files if key.rpartition("_")[2] in wanted]
    return _numbered(found)


def _numbered(labels: Iterable[np.ndarray]) -> tuple[str, ...]:
    largest = (int(each.max()) for each in labels if each.size and each.dtype.kind in "iu")
    return numbered_names(max(largest, default=-1) + 1)


def _read(file: Path) -> dict[str, np.ndarray]:
    # Every array once: an NpzFile decompresses an array each time it is indexed.
    with _opened(file) as loaded:
        return {key: loaded[key] for key in loaded.files}


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, as .npy files do")
        with loaded:
            yield loaded
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"open_npz: cannot read {file} as an .npz of plain arrays: {error}; write it with "
            f"numpy.savez_compressed, without object arrays"
        ) from error


def _listed(arrays: Arrays) -> str:
    return "the arrays " + (", ".join(sorted(arrays)) or "(none)")
