"""Split names with slices: "train[:5400]", "train[90%:]", "train+validation[:10%]".

The notation and its rounding are those of TFDS, for every source alike.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from condconv_jax.data.source import ConcatenatedSource, SampleT, Source, SubsetSource

_BOUND = r"-?\d[\d_]*(?:(?:\.\d+)?%)?"
_PART = re.compile(rf"(?P<split>[\w.-]+)(?:\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\])?")


@dataclass(frozen=True)
class SplitSlice:
    """One part of a split's notation: the split and, as text, where to start and stop."""

    split: str
    start: str
    stop: str

    def __str__(self) -> str:
        if not self.start and not self.stop:
            return self.split
        return f"{self.split}[{self.start}:{self.stop}]"


def parse_split(text: str) -> tuple[SplitSlice, ...]:
    """Returns the parts of a split's notation.

    Args:
      text: a name, or a name and a slice in samples or percent; several joined by "+".

    Raises:
      ValueError: if it is none of these.
    """
    parts = []
    for part in text.split("+"):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"parse_split: cannot read {part.strip()!r} in the split {text!r}; wants a name "
                f'with an optional slice, as "train", "train[:5400]", "train[90%:]" or '
                f'"train[:10%]+test"'
            )
        parts.append(SplitSlice(match["split"], match["start"] or "", match["stop"] or ""))
    return tuple(parts)


def select(text: str, open_split: Callable[[str], Source[SampleT]]) -> Source[SampleT]:
    """Returns the samples a split's notation names.

    Args:
      text: see `parse_split`.
      open_split: from a plain split name to its whole source; called once per name.

    Raises:
      ValueError: if the notation is malformed, a bound lies outside its split, or a slice
        holds no sample.
    """
    parts = parse_split(text)
    whole = {split: open_split(split) for split in dict.fromkeys(part.split for part in parts)}
    sources = [_cut(whole[part.split], part) for part in parts]
    if len(sources) == 1:
        return sources[0]
    return ConcatenatedSource(sources, " + ".join(source.name for source in sources))


def _cut(source: Source[SampleT], part: SplitSlice) -> Source[SampleT]:
    if str(part) == part.split:
        return source
    count = len(source)
    start = _position(part.start, count, part, source) if part.start else 0
    stop = _position(part.stop, count, part, source) if part.stop else count
    if start >= stop:
        raise ValueError(
            f"select: the slice {part} of {source.name} holds none of its {count} samples; "
            f"wants the start below the stop"
        )
    return SubsetSource(source, start, stop, f"{source.name}[{part.start}:{part.stop}]")


def _position(bound: str, count: int, part: SplitSlice, source: Source[Any]) -> int:
    percent = bound.endswith("%")
    number = float(bound[:-1]) if percent else int(bound)
    limit = 100 if percent else count
    if abs(number) > limit:
        raise ValueError(
            f"select: the slice {part} asks for {bound} of {source.name}, which has {count} "
            f"samples; wants a bound of at most {limit}{'%' if percent else ''}"
        )
    # Percentages round to the nearest sample, so [:30%] and [30%:] never overlap or leave a gap.
    position = round(number * count / limit) if percent else int(number)
    return count + position if bound.startswith("-") else position
