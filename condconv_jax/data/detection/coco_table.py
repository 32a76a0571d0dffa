"""Columns of an annotation file's lists of objects, with what is wrong in them named."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class CocoTable:
    """The checks and columns of one file.

    Columns are taken as a whole, and looked through for what is wrong only if something is: an
    annotation file has millions of values.
    """

    def __init__(self, file: Path):
        self.file = file

    def wrong(self, place: str, got: str, wants: str) -> ValueError:
        """Returns the error for a place in the file."""
        return ValueError(
            f"open_coco: {self.file}: {place} {got}; wants {wants}; write the file in COCO's format"
        )

    def items(self, content: Any, key: str) -> list[dict[str, Any]]:
        """Returns one of the file's lists."""
        if not isinstance(content, dict):
            raise self.wrong("the whole", f"is a {type(content).__name__}", "an object")
        if key not in content:
            raise self.wrong("the whole", f"has no {key!r}", "images, annotations and categories")
        items = content[key]
        if not isinstance(items, list):
            raise self.wrong(key, f"is a {type(items).__name__}", "a list of objects")
        if bad := set(map(type, items)) - {dict}:
            index = next(i for i, item in enumerate(items) if type(item) in bad)
            raise self.wrong(f"{key}[{index}]", f"is {_shown(items[index])}", "an object")
        return items

    def values(
        self, items: list[dict[str, Any]], key: str, name: str, types: set[type], wants: str
    ) -> list[Any]:
        """Returns every item's value, which must be there and of one of the types."""
        try:
            values = [item[name] for item in items]
        except KeyError:
            index = next(i for i, item in enumerate(items) if name not in item)
            raise self.wrong(f"{key}[{index}]", f"has no {name!r}", wants) from None
        self.check_types(values, key, name, types, wants)
        return values

    def check_types(
        self, values: Sequence[Any], key: str, name: str, types: set[type], wants: str
    ) -> None:
        """Raises the error for the first value of another type."""
        if bad := set(map(type, values)) - types:
            index = next(i for i, value in enumerate(values) if type(value) in bad)
            raise self.wrong(f"{key}[{index}]", f"has {name} {_shown(values[index])}", wants)

    def integers(
        self,
        items: list[dict[str, Any]],
        key: str,
        name: str,
        least: int | None = None,
        most: int | None = None,
    ) -> list[int]:
        """Returns every item's whole number, between `least` and `most` if given."""
        wants = "a whole number" if least is None else f"a whole number, {least}..{most}"
        values = self.values(items, key, name, {int}, wants)
        if least is not None and most is not None and values:
            for value in (min(values), max(values)):
                if not least <= value <= most:
                    place = f"{key}[{values.index(value)}]"
                    raise self.wrong(place, f"has {name} {value}", wants)
        return values

    def check_unique(self, ids: list[int], key: str, what: str) -> None:
        """Raises the error for the first id that was there before."""
        if len(set(ids)) < len(ids):
            seen: set[int] = set()
            for index, number in enumerate(ids):
                if number in seen:
                    raise self.wrong(
                        f"{key}[{index}]",
                        f"has id {number}, as {key}[{ids.index(number)}] has",
                        f"{what} with different ids",
                    )
                seen.add(number)

    def known(
        self,
        items: list[dict[str, Any]],
        ids: list[int],
        name: str,
        known: dict[int, int],
        what: str,
    ) -> np.ndarray:
        """Returns int64 (m,), what each annotation's `name` stands for."""
        values = self.integers(items, "annotations", name)
        try:
            return np.array([known[value] for value in values], np.int64)
        except KeyError:
            index = next(i for i, value in enumerate(values) if value not in known)
            raise self.wrong(
                f"annotation {ids[index]}",
                f"has {name} {values[index]}, and there is no such {what}",
                f"one of the {len(known)} in the file",
            ) from None

    def corners(self, items: list[dict[str, Any]], ids: list[int]) -> np.ndarray:
        """Returns float64 (m, 4), (top, left, bottom, right) in pixels."""
        wants = "four finite numbers: left, top, width, height in pixels"
        values = self.values(items, "annotations", "bbox", {list}, wants)
        flat: Iterable[Any] = (number for value in values for number in value)
        if set(map(len, values)) - {4} or not all(map(_is_finite, flat)):
            index = next(i for i, value in enumerate(values) if not _four_numbers(value))
            got = f"has bbox {_shown(values[index])}"
            raise self.wrong(f"annotation {ids[index]}", got, wants)
        left, top, width, height = np.array(values, np.float64).reshape(-1, 4).T
        return np.stack([top, left, top + height, left + width], axis=1)

    def crowds(self, items: list[dict[str, Any]]) -> np.ndarray:
        """Returns bool (m,); a box without the flag is no crowd."""
        values = [item.get("iscrowd", 0) for item in items]
        self.check_types(values, "annotations", "iscrowd", {int, bool}, "0 or 1")
        if not set(values) <= {0, 1}:
            index = next(i for i, value in enumerate(values) if value not in (0, 1))
            raise self.wrong(f"annotations[{index}]", f"has iscrowd {values[index]}", "0 or 1")
        return np.array(values, bool)

    def areas(self, items: list[dict[str, Any]], ids: list[int]) -> np.ndarray:
        """Returns float64 (m,), NaN where there is none."""
        wants = "a finite number of pixels, 0 or more"
        values = [item.get("area") for item in items]
        for index, value in enumerate(values):
            if value is not None and not (_is_finite(value) and value >= 0):
                raise self.wrong(f"annotation {ids[index]}", f"has area {_shown(value)}", wants)
        return np.array(values, np.float64)


def _four_numbers(value: list[Any]) -> bool:
    return len(value) == 4 and all(map(_is_finite, value))


def _is_finite(value: Any) -> bool:
    """Returns whether a value is a number of float64's range; a bool is none, NaN is not in it."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
