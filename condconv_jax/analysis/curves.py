"""A training run's curves and its cost in time, from its metrics file."""

import dataclasses
from pathlib import Path

import numpy as np

from condconv_jax.runtime import read_json_lines


@dataclasses.dataclass(frozen=True)
class Curves:
    """What a run logged until one of its steps.

    Attributes:
      train_epoch: epochs done at each row of training metrics (k,).
      train_loss: mean training loss since the row before (k,).
      eval_epoch: epochs done at each evaluation (j,).
      eval_top1: accuracy there, 0 to 1 (j,).
      seconds: of training in all, without evaluations and saving.
      images_per_second: median over the rows but the first, which holds compilation; None if
        there is no other.
    """

    train_epoch: np.ndarray
    train_loss: np.ndarray
    eval_epoch: np.ndarray
    eval_top1: np.ndarray
    seconds: float
    images_per_second: float | None

    @property
    def final_loss(self) -> float:
        """Mean training loss over the steps of the last epoch.

        A row may be of a single batch, where an evaluation follows the row before closely.
        """
        lengths = np.diff(self.train_epoch, prepend=0.0)
        last = self.train_epoch > self.train_epoch[-1] - 1
        return float(np.average(self.train_loss[last], weights=lengths[last]))


def read_curves(path: str | Path, last_step: int | None = None) -> Curves:
    """Returns the curves of a run.

    Args:
      path: its metrics.jsonl.
      last_step: leaves out what was logged after it; None for nothing.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it has no row of training metrics.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"read_curves: no {path}; training writes it, pass the work directory of a run with it"
        )
    rows = [row for row in read_json_lines(path) if last_step is None or row["step"] <= last_step]
    train = [row for row in rows if row.get("kind") == "train"]
    evaluations = [row for row in rows if row.get("kind") == "eval" and "top1" in row]
    if not train:
        until = "" if last_step is None else f" up to step {last_step}"
        raise ValueError(
            f"read_curves: {path} has no row of training metrics{until}; pass the work directory "
            "of a run that has trained"
        )
    epochs_per_step = train[-1]["epoch"] / max(1, train[-1]["step"])
    speeds = [row["images_per_second"] for row in train[1:]]
    return Curves(
        train_epoch=np.array([row["epoch"] for row in train], np.float64),
        train_loss=np.array([row["loss"] for row in train], np.float64),
        eval_epoch=np.array([row["step"] * epochs_per_step for row in evaluations], np.float64),
        eval_top1=np.array([row["top1"] for row in evaluations], np.float64),
        seconds=float(sum(row["seconds"] for row in train)),
        images_per_second=float(np.median(speeds)) if speeds else None,
    )


def thinned(x: np.ndarray, y: np.ndarray, points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Returns a curve of at most about `points` points, each the mean of neighbouring ones.

    Rows that are much shorter than most, such as that of a single batch before an evaluation, join
    the next; a mean is weighted by the rows' lengths and stands at the end of its last row.

    Args:
      x: ends of the rows (k,), ascending from 0, which is not among them.
      y: means over the rows (k,).
      points: at most, about.
    """
    lengths = np.diff(x, prepend=0.0)
    least = max(0.75 * float(np.median(lengths)), x[-1] / points)
    last, start = [], 0
    for index in range(len(x)):
        if lengths[start : index + 1].sum() >= least * (1 - 1e-9):
            last.append(index)
            start = index + 1
    last = [*last[:-1], len(x) - 1]  # a short rest joins the row before
    groups = np.split(np.arange(len(x)), [index + 1 for index in last[:-1]])
    return x[last], np.array([np.average(y[g], weights=lengths[g]) for g in groups])
