"""COCO's annotation files: read, checked, and turned into flat arrays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from condconv_jax.data.detection.boxes import box_areas, clip_boxes, has_inside
from condconv_jax.data.detection.coco_table import CocoTable
from condconv_jax.names import unknown_name

# All else is dropped while the file is read: segmentations are most of it, and their numbers would
# all be Python objects at once.
_OF_THE_WHOLE = ("images", "annotations", "categories")
_OF_PICTURES_AND_CATEGORIES = ("id", "file_name", "width", "height", "name")
_OF_BOXES = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
_KEYS = frozenset((*_OF_THE_WHOLE, *_OF_PICTURES_AND_CATEGORIES, *_OF_BOXES))

# Files give pixels to two decimals: left and width, rounded to the nearest 0.01 each, may add up
# to 0.01 more than the picture's width. That is no news; the rest is for float64's own rounding.
_ROUNDING = 0.0101


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """The n pictures of an annotation file and their m boxes, picture after picture.

    Attributes:
      files: names of the pictures, in the file's order.
      image_ids: int32 (n,).
      sizes: int32 (n, 2), height and width, pixels.
      offsets: int64 (n + 1,); picture i has the boxes offsets[i]..offsets[i + 1] - 1.
      boxes: float32 (m, 4), (top, left, bottom, right) as shares of height and width.
      labels: int32 (m,).
      crowd: bool (m,).
      area: float32 (m,), pixels^2.
      class_names: by label.
      category_ids: the file's own number of each class.
      remarks: what was left out or mended.
    """

    files: tuple[str, ...]
    image_ids: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    remarks: tuple[str, ...]


def read_coco_json(file: Path, categories: Sequence[str] = ()) -> CocoAnnotations:
    """Returns the content of an annotation file; see `open_coco`, which calls this.

    Raises:
      ValueError: naming `open_coco`, the file and the place in it, if it is not JSON or not what
        COCO's format says, or a category is not there.
    Cost: see `open_coco`.
    """
    content = _parse(file)
    table = CocoTable(file)
    pictures = table.items(content, "images")
    image_ids = table.integers(pictures, "images", "id", -(2**31), 2**31 - 1)
    files = table.values(pictures, "images", "file_name", {str}, "a text")
    sizes = np.array(
        [table.integers(pictures, "images", key, 1, 2**31 - 1) for key in ("height", "width")],
        np.int32,
    ).T.reshape(-1, 2)
    place = {image_id: index for index, image_id in enumerate(image_ids)}
    table.check_unique(image_ids, "images", "pictures")

    class_ids, class_names, label_of = _classes(table, content, categories)

    items = table.items(content, "annotations")
    ids = table.integers(items, "annotations", "id")
    owners = table.known(items, ids, "image_id", place, "picture")
    labels = table.known(items, ids, "category_id", label_of, "category")
    corners = table.corners(items, ids)
    crowd = table.crowds(items)
    area = table.areas(items, ids)
    del content, items

    kept, shares, remarks = _mend(file.name, ids, files, sizes, owners, labels, corners)
    height_width = np.tile(sizes[owners], 2)
    area = np.where(np.isnan(area), box_areas(shares * height_width), area)
    # Stable: the boxes of a picture stay in the file's order.
    order = np.flatnonzero(kept)[np.argsort(owners[kept], kind="stable")]
    counts = np.bincount(owners[order], minlength=len(files))
    return CocoAnnotations(
        files=tuple(files),
        image_ids=np.array(image_ids, np.int32),
        sizes=sizes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=shares[order],
        labels=labels[order].astype(np.int32),
        crowd=crowd[order],
        area=area[order].astype(np.float32),
        class_names=class_names,
        category_ids=class_ids,
        remarks=remarks,
    )


def _parse(file: Path) -> Any:
    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in pairs if key in _KEYS}

    try:
        return json.loads(file.read_text("utf-8-sig"), object_pairs_hook=kept)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"open_coco: {file} is not JSON: {error.msg} in line {error.lineno}, column "
            f"{error.colno}; copy the file again, or mend it there"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"open_coco: {file} is not text in UTF-8: {error.reason} at byte {error.start}; copy "
            f"the file again"
        ) from error


def _classes(
    table: CocoTable, content: Any, wanted: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...], dict[int, int]]:
    """Returns number and name of each class, and the label of each category (-1: not wanted)."""
    items = table.items(content, "categories")
    ids = table.integers(items, "categories", "id")
    names = table.values(items, "categories", "name", {str}, "a text")
    table.check_unique(ids, "categories", "categories")
    named = dict(sorted(zip(ids, names, strict=True)))
    if not named:
        raise table.wrong("categories", "is empty", "at least one category")
    if not wanted:
        for index, name in enumerate(names):
            if name in names[:index]:
                got = f"has the name {name!r} of another"
                raise table.wrong(f"categories[{index}]", got, "one of each name")
        return tuple(named), tuple(named.values()), {id: n for n, id in enumerate(named)}
    if isinstance(wanted, str) or len(set(wanted)) != len(wanted):
        raise ValueError(
            f"open_coco: got categories {wanted!r}; wants different names of categories in a list"
        )
    chosen = []
    for name in wanted:
        matching = [number for number, other in named.items() if other == name]
        if not matching:
            raise unknown_name("open_coco", f"category of {table.file}", name, named.values())
        if len(matching) > 1:
            raise table.wrong("categories", f"has {name!r} as {matching}", "one of each name")
        chosen += matching
    label_of = dict.fromkeys(named, -1) | {number: n for n, number in enumerate(chosen)}
    return tuple(chosen), tuple(wanted), label_of


def _mend(
    name: str,
    ids: Sequence[int],
    files: Sequence[str],
    sizes: np.ndarray,
    owners: np.ndarray,
    labels: np.ndarray,
    corners: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns which boxes stay, all boxes as float32 shares inside 0..1, and remarks."""
    remarks = []
    kept = labels >= 0

    def note(which: np.ndarray, what: str) -> None:
        if count := np.count_nonzero(which):
            first = int(np.argmax(which))
            remarks.append(
                f"{name}: {count} {'box' if count == 1 else 'boxes'} {what}, the first of picture "
                f"{files[owners[first]]} (annotation {ids[first]})"
            )

    note(~kept, "of other categories left out")
    limits = np.concatenate([np.zeros((len(owners), 2)), sizes[owners]], axis=1)
    clipped = clip_boxes(corners, limits)
    shares = (clipped / np.tile(limits[:, 2:], 2)).astype(np.float32)
    # Also those that float32 cannot tell from a line.
    flat = kept & (~has_inside(corners) | (has_inside(clipped) & ~has_inside(shares)))
    note(flat, "of zero or negative size left out")
    kept &= ~flat
    outside = kept & ~has_inside(clipped)
    note(outside, "wholly outside the picture left out")
    kept &= ~outside
    beyond = np.abs(clipped - corners).max(axis=1, initial=0)
    beyond = np.where(kept & (beyond > _ROUNDING), beyond, 0)
    most = beyond.max(initial=0)
    note(beyond > 0, f"cut off at the picture's edge, of at most {most:.3g} pixels beyond it")
    return kept, shares, tuple(remarks)
