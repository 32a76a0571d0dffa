"""What a source of labelled pictures is, and the sources made of other sources.

Sources are generic in what they hold: `Sample` for classification; detection has a sample of its
own (`condconv_jax.data.detection`).
"""

import abc
import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import numpy as np


class Sample(TypedDict):
    """One labelled picture: image uint8 (h, w, 3) in RGB, label in 0..num_classes - 1."""

    image: np.ndarray
    label: int


SampleT = TypeVar("SampleT")
SampleT_co = TypeVar("SampleT_co", covariant=True)


class Source(Protocol[SampleT_co]):
    """Random access to labelled pictures.

    Sources do not shuffle, augment or batch; `train_batches` and `eval_batches` do. Reading
    must be safe from several threads at once, and the same index must always give the same
    sample: restarting a run in the middle of an epoch relies on it.

    Attributes:
      name: what error messages call it, e.g. "fashion_mnist train".
      class_names: one name per class, in the order of the labels.
      remarks: sentences on what was mended or left out when the data were opened, for the log.
    """

    @property
    def name(self) -> str:
        """What error messages call the source."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, in the order of the labels."""
        ...

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not every one has a sample."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on what was mended or left out when the data were opened."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SampleT_co: ...

    def __iter__(self) -> Iterator[SampleT_co]: ...


class NamedSource(abc.ABC, Generic[SampleT]):
    """What the sources here have in common: their number of classes and how they print.

    A source of your own that has `name`, `class_names`, `__len__` and `__getitem__` gets the rest
    of `Source` from here. Sources are compared by identity and print as one line, because the
    arrays and file lists they hold may be of any size.
    """

    name: str
    class_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not every one has a sample."""
        return len(self.class_names)

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> SampleT: ...

    def __iter__(self) -> Iterator[SampleT]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self)} samples, "
            f"{self.num_classes} classes>"
        )


def checked_index(source: Source[Any], index: int) -> int:
    """Returns `index` counted from the front, as a list would take it.

    Raises:
      IndexError: if it is outside.
    """
    count = len(source)
    if not -count <= index < count:
        raise IndexError(f"{source.name}: index {index} is outside its {count} samples")
    return index % count


@dataclass(frozen=True, eq=False, repr=False)
class SubsetSource(NamedSource[SampleT]):
    """The samples start..stop - 1 of another source, under the same classes."""

    source: Source[SampleT]
    start: int
    stop: int
    name: str
    class_names: tuple[str, ...] = field(init=False)
    remarks: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", self.source.class_names)
        object.__setattr__(self, "remarks", self.source.remarks)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> SampleT:
        return self.source[self.start + checked_index(self, index)]


@dataclass(frozen=True, eq=False, repr=False)
class ConcatenatedSource(NamedSource[SampleT]):
    """Several sources one after another.

    Raises:
      ValueError: if there are none, or they differ in their class names: the same label
        would then mean different things.
    """

    sources: Sequence[Source[SampleT]]
    name: str
    class_names: tuple[str, ...] = field(init=False)
    remarks: tuple[str, ...] = field(init=False)
    _ends: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(f"ConcatenatedSource: {self.name} got no sources; pass at least one")
        first = self.sources[0]
        for other in self.sources[1:]:
            if tuple(other.class_names) != tuple(first.class_names):
                raise ValueError(
                    f"ConcatenatedSource: {first.name} has the classes "
                    f"{_abbreviated(first.class_names)}, {other.name} has "
                    f"{_abbreviated(other.class_names)}; join only sources of the same classes "
                    f"in the same order"
                )
        object.__setattr__(self, "class_names", tuple(first.class_names))
        # Two slices of one source have the same remarks.
        remarks = dict.fromkeys(remark for source in self.sources for remark in source.remarks)
        object.__setattr__(self, "remarks", tuple(remarks))
        object.__setattr__(self, "_ends", tuple(itertools.accumulate(map(len, self.sources))))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> SampleT:
        index = checked_index(self, index)
        which = bisect.bisect_right(self._ends, index)
        return self.sources[which][index - (self._ends[which - 1] if which else 0)]


def _abbreviated(names: Sequence[str], shown: int = 5) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > shown else ""
    return "(" + ", ".join(names[:shown]) + more + ")"
