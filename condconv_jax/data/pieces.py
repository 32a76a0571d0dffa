"""Batches that several threads fill together, a piece of their rows each."""

import threading
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

Batch = dict[str, np.ndarray]

# Of a piece, at most. Pictures of 32 pixels are read as fast in pieces of 32 as of 128 (10,000 a
# second by two threads); large ones take less memory in small pieces.
PIECE_ROWS = 32


class BatchPieces(grain.MapDataset):
    """Reading element k fills the k-th piece of a process' batches; it is the batch it belongs to.

    A batch is whole when its `per_batch` elements, which follow one another, have been read, each
    of them once; in which order and by which threads does not matter. The rows are written where
    they stay: whole batches would have to be read by one thread each, and many of them at a time
    are more than a machine holds; joined of smaller ones they would be copied by the one thread
    that everything waits for.

    Attributes:
      per_batch: pieces of a batch.
    """

    def __init__(
        self, samples: grain.MapDataset, rows: int, process_index: int, process_count: int
    ):
        """Takes its share of the samples.

        Args:
          samples: transformed, of all processes: mappings of arrays of the same shapes and types.
          rows: of a batch of one process.
          process_index: this process.
          process_count: how many processes share a batch; what is left of the samples at the end
            is dropped.
        """
        super().__init__(samples)
        self.per_batch = -(-rows // PIECE_ROWS)
        self._rows = rows
        self._process_index, self._process_count = process_index, process_count
        self._lock = threading.Lock()
        # By step: a batch that is not whole yet, and the number of pieces that are missing.
        self._begun: dict[int, tuple[Batch, int]] = {}

    def __len__(self) -> int:
        return len(self._parent) // (self._rows * self._process_count) * self.per_batch

    def __getitem__(self, index: int) -> Batch:
        """Returns the batch that a piece belongs to, with the rows of that piece filled.

        Raises:
          ValueError: if samples of a batch differ in keys, shapes or types.
        """
        step, piece = divmod(index, self.per_batch)
        first, last = (part * self._rows // self.per_batch for part in (piece, piece + 1))
        start = (step * self._process_count + self._process_index) * self._rows
        sample = self._parent[start + first]
        batch = self._batch(step, sample)
        _put(batch, first, sample)
        for row in range(first + 1, last):
            _put(batch, row, self._parent[start + row])
        self._finish_piece(step)
        return batch

    def _batch(self, step: int, sample: Mapping[str, Any]) -> Batch:
        """The batch of a step, which the first piece that gets here begins."""
        with self._lock:
            if step not in self._begun:
                arrays = {key: np.asarray(value) for key, value in sample.items()}
                batch = {k: np.empty((self._rows, *a.shape), a.dtype) for k, a in arrays.items()}
                self._begun[step] = (batch, self.per_batch)
            return self._begun[step][0]

    def _finish_piece(self, step: int) -> None:
        with self._lock:
            batch, missing = self._begun.pop(step)
            if missing > 1:
                self._begun[step] = (batch, missing - 1)


def _put(batch: Batch, row: int, sample: Mapping[str, Any]) -> None:
    """Writes a sample into a row.

    Raises:
      ValueError: if it is not like the sample that the batch was made for.
    """
    if sample.keys() != batch.keys():
        raise ValueError(
            f"BatchPieces: a sample has {', '.join(sample)}, another one {', '.join(batch)}; wants "
            f"a transform that gives the same for all"
        )
    for key, value in sample.items():
        rows, array = batch[key], np.asarray(value)
        if array.shape != rows.shape[1:] or array.dtype != rows.dtype:
            raise ValueError(
                f"BatchPieces: {key} of a sample is {array.dtype} {array.shape}, of another one "
                f"{rows.dtype} {rows.shape[1:]}; wants a transform that gives the same for all"
            )
        rows[row] = array
