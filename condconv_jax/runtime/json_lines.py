"""Metrics on disk as JSON lines: one object per logged step, readable by any tool.

``{"step": 100, "kind": "train", "loss": 0.25}``. JSON has no NaN or infinity, so these are the
strings "NaN", "Infinity" and "-Infinity", which Python's, JavaScript's and pandas' number
conversions read back; `read_json_lines` does.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from condconv_jax.runtime import atomic

Kind = Literal["train", "eval"]
"""Whether scalars come from training steps or from an evaluation."""

_RESERVED = ("step", "kind")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonLinesWriter:
    """Appends one line per call, flushed at once, so that a killed process loses none.

    Args:
      path: the file; it and its folder are made if missing. A last line that a killed process
        left half written is dropped.

    Raises:
      ValueError: if the file holds anything else that is not such a line.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite(last_step=None)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, scalars: Mapping[str, Any], kind: Kind = "train") -> None:
        """Appends a line.

        Args:
          step: training steps done so far.
          scalars: numbers by name: Python, numpy or JAX scalars.
          kind: "train" or "eval".

        Raises:
          ValueError: if a name is "step" or "kind", or a value is no scalar.
          OSError: if the line cannot be written, as on a full disk; names the file.
        """
        if taken := [name for name in _RESERVED if name in scalars]:
            raise ValueError(
                f"JsonLinesWriter: {', '.join(taken)} cannot be the name of a scalar; rename it"
            )
        values = {name: _to_json(name, value) for name, value in scalars.items()}
        line = json.dumps({"step": int(step), "kind": kind, **values}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            # What could not be written would be tried again when the file is closed.
            with contextlib.suppress(OSError):
                self._file.close()
            raise OSError(
                f"JsonLinesWriter: {error.strerror}, {self.path}: the row of step {step} is not "
                "written; once there is room, the same command goes on from the last checkpoint"
            ) from error

    def truncate_after(self, step: int, *, evaluated: bool = True) -> None:
        """Drops the lines of later steps, for a run that goes on from a checkpoint at `step`.

        The run that was killed may have logged past its last checkpoint; the steps that are
        about to be repeated must not be there twice. Atomic: a kill leaves the old file.

        Args:
          step: of the checkpoint.
          evaluated: whether the step's own evaluation is done; else its line is dropped too.
        """
        self._file.close()
        self._rewrite(last_step=step, evaluated=evaluated)
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rewrite(self, last_step: int | None, *, evaluated: bool = True) -> None:
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        kept = [
            line
            for line, item in _parse(self.path, text)
            if last_step is None
            or item["step"] < last_step
            or (item["step"] == last_step and (evaluated or item.get("kind") != "eval"))
        ]
        new = "".join(line + "\n" for line in kept)
        if new != text:
            atomic.write_text(self.path, new)


def read_json_lines(path: str | Path, kind: Kind | None = None) -> list[dict[str, Any]]:
    """Returns the objects of a metrics file in their order, non-finite numbers as floats.

    Args:
      path: the file; it may still be written to.
      kind: "train" or "eval" to leave out the others; None for both.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line other than a half-written last one is not an object with a step.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"read_json_lines: no {path}; pass the metrics.jsonl of a work directory"
        )
    text = path.read_text(encoding="utf-8", errors="replace")
    return [
        {name: _NON_FINITE.get(v, v) if isinstance(v, str) else v for name, v in item.items()}
        for _, item in _parse(path, text)
        if kind is None or item.get("kind") == kind
    ]


def _parse(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns each line and its object, without a half-written last line."""
    lines = text.split("\n")
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
        except json.JSONDecodeError:
            item = None
        if isinstance(item, dict) and isinstance(item.get("step"), int):
            parsed.append((line, item))
        elif number < len(lines):  # what follows the last newline is empty or half written
            raise ValueError(
                f"metrics file {path}, line {number}: {line[:80]!r} is not an object with a step; "
                "remove the line, or move the file away"
            )
    return parsed


def _to_json(name: str, value: Any) -> int | float | bool | str:
    array = np.asarray(value)
    item = array.item() if array.ndim == 0 else value
    if isinstance(item, bool | int):
        return item
    if not isinstance(item, float):
        raise ValueError(
            f"JsonLinesWriter: {name} is {value!r:.80}; pass a scalar number, such as its mean"
        )
    if math.isfinite(item):
        return item
    return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
