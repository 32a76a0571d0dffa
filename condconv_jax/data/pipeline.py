"""Batches from a source, in an order that a seed and a sample's global index fix completely.

The pipeline is grain's: shuffle every epoch -> repeat -> transform -> take this process' rows of
each batch -> read ahead in threads. Two choices matter.

The transform comes before the process takes its share, because grain derives each sample's random
generator from its index. The other way round every process would draw the same augmentations, and
a run continued on another number of processes would draw others.

Its share are rows p*b .. (p+1)*b - 1 of each global batch (process p of P, b = batch_size / P): put
together in the order of the processes, the global batch is the same array whatever their number.
Threads read pieces of these rows: single samples would be half as fast for small pictures, whole
batches would take a machine's memory where they are large and there are many threads.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from condconv_jax.data.corrupt import SkippingSource
from condconv_jax.data.pieces import Batch, BatchPieces
from condconv_jax.data.source import SampleT, Source

# A sample and a random generator -> arrays whose shapes and types are those of every other sample.
SampleTransform = Callable[[SampleT, np.random.Generator], Mapping[str, Any]]


class Batches(Iterator[Batch]):
    """Batches that are being read ahead; `close()` stops the threads that do.

    Ends at the first error. grain's own iterator would go on behind the batch that failed, and a
    loop that retries would silently train without those samples.
    """

    def __init__(self, iterator: Any, pieces: int):
        """Takes an iterator that gives each batch as many times as it has pieces."""
        self._iterator = iterator
        self._pieces = pieces

    def __next__(self) -> Batch:
        """Returns the next batch, or raises what the source or the transform raised for it."""
        if self._iterator is None:
            raise StopIteration
        try:
            for _ in range(self._pieces):
                batch: Batch = next(self._iterator)
            return batch
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stops reading; no batch comes any more."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def __del__(self) -> None:
        self.close()


def train_batches(
    source: Source[SampleT],
    transform: SampleTransform[SampleT],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> Batches:
    """Returns this process' part of an endless stream of training batches.

    Every epoch is a new permutation of the source; batches run across the ends of epochs, nothing
    is dropped. Sample k of the stream, its augmentation included, depends on the source, the
    transform, `seed` and k only. Starting in the middle costs nothing.

    Args:
      source: the samples.
      transform: see `make_transforms` and `detection.make_detection_transforms`.
      batch_size: of the global batch, over all processes.
      seed: 0..2**32 - 1; fixes order and augmentations.
      start: global index of the first sample, steps already taken times batch_size.
      process_index: this process, 0..process_count - 1.
      process_count: how many processes share a batch.
      threads: that read and transform; 0 does it in the caller's thread, without reading ahead.

    Returns:
      `Batches` of what the transform returns, stacked: {"image": uint8 (b, h, w, 3), "label":
      int32 (b,)} for classification, b = batch_size / process_count. It reads ahead from now on.
      `close()` it, or let it go out of scope, to stop the threads.

    Raises:
      ValueError: if the source is empty, or an argument is out of its range; from the batches,
        whatever the source or the transform raised for a sample, which also ends it.
    """
    rows = _local_batch_size(
        "train_batches", source, batch_size, process_index, process_count, threads
    )
    if not 0 <= seed < 2**32:
        raise ValueError(f"train_batches: got seed {seed}; wants 0..2**32 - 1")
    if start < 0:
        raise ValueError(
            f"train_batches: got start {start}; wants the number of samples already used, 0 or more"
        )
    # Seeds passed on explicitly: those that grain derives change with a stage's position.
    order_seed, augmentation_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
    samples = grain.MapDataset.source(source).shuffle(order_seed).repeat()
    samples = samples.random_map(transform, seed=augmentation_seed)
    return _read(BatchPieces(samples[start:], rows, process_index, process_count), threads)


def eval_batches(
    source: Source[SampleT],
    transform: SampleTransform[SampleT],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> Batches:
    """Returns this process' part of one pass over the source, in its order.

    Over all processes every sample comes exactly once. All processes get the same number of
    batches, all of the same shape: what is missing at the end is filled with rows of zeros, and
    so are the places of damaged samples if the source is a `SkippingSource`.

    Args:
      source: the samples.
      transform: as `train_batches`; a random one draws the same numbers in every pass.
      batch_size: of the global batch, over all processes.
      process_index: this process, 0..process_count - 1.
      process_count: how many processes share a batch.
      threads: that read and transform; 0 does it in the caller's thread, without reading ahead.

    Returns:
      `Batches` of what the transform returns, stacked, and "mask": float32 (b,),
      b = batch_size / process_count; mask is 1 for samples and 0 for filling and for the samples
      that a `SkippingSource` finds damaged. `close()` it to stop its threads early.

    Raises:
      ValueError: as `train_batches`.
    """
    rows = _local_batch_size(
        "eval_batches", source, batch_size, process_index, process_count, threads
    )
    total = -(-len(source) // batch_size) * batch_size
    samples = grain.MapDataset.range(total).random_map(_MaskedSamples(source, transform), seed=0)
    return _read(BatchPieces(samples, rows, process_index, process_count), threads)


@dataclass(frozen=True)
class _MaskedSamples:
    """Index -> transformed sample with mask 1; zeros with mask 0 where there is none."""

    source: Source[Any]
    transform: SampleTransform[Any]

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        if index >= len(self.source):
            return self._filling
        if isinstance(self.source, SkippingSource):
            # No replacement: it would be evaluated twice.
            if (sample := self.source.intact(index)) is None:
                return self._filling
        else:
            sample = self.source[index]
        return {**self.transform(sample, rng), "mask": np.float32(1)}

    @functools.cached_property
    def _filling(self) -> dict[str, Any]:
        # Only the transform knows the shape of its results, so one sample has to go through it.
        sample = self.transform(self.source[0], np.random.default_rng(0))
        zeros = {key: np.zeros_like(value) for key, value in sample.items()}
        return {**zeros, "mask": np.float32(0)}


def _read(pieces: BatchPieces, threads: int) -> Batches:
    # One batch, so that the next is there when it is asked for, and something to do for threads
    # while that one is not taken.
    ahead = pieces.per_batch + 2 * threads if threads else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    iterator = iter(pieces.to_iter_dataset(options))
    iterator.start_prefetch()
    return Batches(iterator, pieces.per_batch)


def _local_batch_size(
    function: str,
    source: Source[Any],
    batch_size: int,
    process_index: int,
    process_count: int,
    threads: int,
) -> int:
    """Returns the rows of a batch per process, after checking what both pipelines are given."""
    if len(source) == 0:
        raise ValueError(
            f"{function}: the source {getattr(source, 'name', source)} is empty; wants at least "
            f"one sample"
        )
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(
            f"{function}: got process_index {process_index} of process_count {process_count}; "
            f"wants 0 <= process_index < process_count"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"{function}: got batch_size {batch_size} for {process_count} processes; wants a "
            f"positive multiple of {process_count}, because it is the global batch"
        )
    if threads < 0:
        raise ValueError(f"{function}: got threads {threads}; wants 0 or more")
    return batch_size // process_count
