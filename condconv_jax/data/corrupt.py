"""Damaged pictures: named, counted and passed over, up to a limit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from condconv_jax.data.decoding import CorruptSampleError
from condconv_jax.data.source import NamedSource, SampleT, Source, checked_index


@dataclass(frozen=True, eq=False, repr=False)
class SkippingSource(NamedSource[SampleT]):
    """Another source, in which damaged samples are replaced by the next intact ones.

    The next in the source's order, from its end to its beginning: the sample at an index depends
    on the data alone, so that every process, and a run that is continued, sees the same stream.
    `eval_batches` takes no replacements, it masks damaged samples out.

    Every damaged sample is counted once, when this object first meets it: the processes of a run
    count what they meet themselves, and one that is resumed begins anew. Wrap the source as a
    whole: what is made of parts (`open_source("...", "train+val")`) is counted as one.

    Attributes:
      source: the samples; damage is what it raises `CorruptSampleError` for. Any other error,
        such as FileNotFoundError, stays one.
      limit: how many different samples may be damaged; 0 allows none.
      report: called once for every damaged sample within the limit, with a message that names it,
        from the thread that met it.
      limit_name: what messages call the limit, such as the key of a config that sets it.

    Raises:
      ValueError: if limit is negative. On reading: an error that names the last damaged sample and
        the limit if there are more of them.
      CorruptSampleError: on reading, if limit is 0.
    """

    source: Source[SampleT]
    limit: int
    report: Callable[[str], None]
    limit_name: str = "the limit"
    name: str = field(init=False)
    class_names: tuple[str, ...] = field(init=False)
    remarks: tuple[str, ...] = field(init=False)
    _found: set[int] = field(init=False, default_factory=set)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(
                f"SkippingSource: got limit {self.limit} for {self.source.name}; wants the number "
                f"of damaged samples to pass over, 0 or more"
            )
        object.__setattr__(self, "name", self.source.name)
        object.__setattr__(self, "class_names", self.source.class_names)
        object.__setattr__(self, "remarks", self.source.remarks)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> SampleT:
        index, count = checked_index(self, index), len(self)
        for step in range(count):
            if (sample := self.intact((index + step) % count)) is not None:
                return sample
        raise ValueError(
            f"SkippingSource: all {count} samples of {self.name} are damaged; check the path and "
            f"how the data were copied"
        )

    def intact(self, index: int) -> SampleT | None:
        """Returns the sample at an index, or None if it is damaged and the limit allows it."""
        index = checked_index(self, index)
        try:
            return self.source[index]
        except CorruptSampleError as error:
            if self.limit == 0:
                raise CorruptSampleError(f"{error}; or raise {self.limit_name}") from error
            self._count(index, error)
            return None

    def _count(self, index: int, error: CorruptSampleError) -> None:
        with self._lock:
            new = index not in self._found
            self._found.add(index)
            count = len(self._found)
        if count > self.limit:
            raise ValueError(
                f"SkippingSource: {self.name} has more than {self.limit} damaged samples, which is "
                f"the limit; the last: {error}; repair the data, or raise {self.limit_name}"
            ) from error
        if new:
            self.report(f"damaged sample {count} of at most {self.limit} passed over: {error}")
