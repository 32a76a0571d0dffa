"""The work directory of a run: its parts, its config, and the lock of the run that trains in it."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from condconv_jax.runtime import atomic, restoring
from condconv_jax.runtime.agreement import agreed

_ABSENT = object()


class WorkDir:
    """The paths of a run's files; makes nothing by itself.

    Attributes:
      path: the work directory.
      config: the resolved config, ``config.json``.
      facts: what the config does not say but a run depends on, ``data.json``.
      done: there once the run has ended as planned, ``done.json``.
      checkpoints: folder of `runtime.Checkpoints`.
      metrics: one JSON object per logged step, ``metrics.jsonl``.
      tensorboard: folder of TensorBoard events.
      report: folder of the analysis.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        self.config = self.path / "config.json"
        self.facts = self.path / "data.json"
        self.done = self.path / "done.json"
        self.checkpoints = self.path / restoring.FOLDER
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.report = self.path / "report"

    def __repr__(self) -> str:
        return f"WorkDir({str(self.path)!r})"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes ``config.json`` atomically, in process 0; makes the work directory if missing.

        Args:
          config: nested dict of what JSON can hold; tuples become lists.

        Raises:
          ValueError: if a value is not of a type that JSON has.
        """
        text = _to_json(config, "write_config")
        if jax.process_index() == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            atomic.write_text(self.config, text)

    def read_config(self) -> dict[str, Any]:
        """Returns the content of ``config.json``.

        Raises:
          FileNotFoundError: if there is none.
          ValueError: if it is not a JSON object.
        """
        try:
            config = json.loads(self.config.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"read_config: no {self.config}; pass the work directory of a run"
            ) from None
        except json.JSONDecodeError as error:
            raise ValueError(
                f"read_config: {self.config} is not JSON ({error}); restore it from the run's "
                "config, or use another work directory"
            ) from None
        if not isinstance(config, dict):
            raise ValueError(
                f"read_config: {self.config} holds a {type(config).__name__}; it must be an object"
            )
        return config

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes ``data.json`` atomically, in process 0.

        Args:
          facts: of the data: number of images, names of classes.
        """
        text = _to_json(facts, "write_facts")
        if jax.process_index() == 0:
            atomic.write_text(self.facts, text)

    def read_facts(self) -> dict[str, Any]:
        """Returns the content of ``data.json``, empty if there is none."""
        if not self.facts.exists():
            return {}
        return json.loads(self.facts.read_text(encoding="utf-8"))

    def check_facts(self, now: Mapping[str, Any]) -> None:
        """Checks that the data are those of the run, which they need not be at the same path.

        Args:
          now: facts of the data at hand; what was not written is not compared.

        Raises:
          ValueError: naming what differs.
        """
        saved = self.read_facts()
        for key, value in now.items():
            if key in saved and saved[key] != value:
                raise ValueError(
                    f"check_facts: the data of the run in {self.path} had {key} "
                    f"{_abridged(saved[key])}, these have {_abridged(value)}; use the same data, "
                    "or another work directory"
                )

    def write_done(self, steps: int | None, machine: Mapping[str, Any] | None = None) -> None:
        """Writes ``done.json`` atomically, in process 0; removes it of a run that is under way.

        Args:
          steps: of the whole run, all of them done, evaluated and saved; None while they are not.
          machine: that did the last of them, `performance.machine.describe()`.
        """
        if jax.process_index() != 0:
            return
        if steps is None:
            self.done.unlink(missing_ok=True)
        else:
            content = {"steps": steps, "machine": dict(machine or {})}
            atomic.write_text(self.done, _to_json(content, "write_done"))

    def read_done(self) -> dict[str, Any]:
        """Returns the content of ``done.json``, empty if there is none: the run has not ended."""
        if not self.done.exists():
            return {}
        return json.loads(self.done.read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second run from training here; makes the work directory if missing.

        Process 0 holds it for all processes of the run. The kernel lets go when the process
        ends, however it ends, so nothing is ever left to clean up.

        Raises:
          ValueError: if a process of another run holds it; names that process.
          OtherProcessError: the same, in processes other than 0.
        """
        with contextlib.ExitStack() as held:
            agreed(lambda: self._hold(held) if jax.process_index() == 0 else None)
            yield

    def _hold(self, held: contextlib.ExitStack) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # The file stays: were it removed, two runs could each lock a file of this name.
        with contextlib.ExitStack() as stack:
            file = stack.enter_context((self.path / ".lock").open("a+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise ValueError(
                    f"lock: {self.path} is in use by process {holder}; wait for it, end it, or "
                    "use another work directory"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}")
            file.flush()
            held.enter_context(stack.pop_all())


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a config by dotted key; an empty dict is a leaf.

    Args:
      config: nested dict.
      prefix: of every key.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_config(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_same_config(
    saved: Mapping[str, Any], now: Mapping[str, Any], may_change: Sequence[str] = ()
) -> None:
    """Checks that a run may go on under the config it has now.

    Args:
      saved: config the work directory was made with, from `WorkDir.read_config`.
      now: config of this run; compared as JSON would read it back, so tuples equal lists.
      may_change: patterns (`fnmatch`) of dotted keys that may differ, such as "log.*".

    Raises:
      ValueError: if they differ elsewhere; names every such key with both values.
    """
    before = flatten_config(saved)
    after = flatten_config(json.loads(_to_json(now, "check_same_config")))
    differences = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        # By text, so that NaN equals itself and true is not 1.
        if _show(old) != _show(new) and not any(fnmatch.fnmatch(key, p) for p in may_change):
            differences.append(f"{key}: saved {_show(old)}, now {_show(new)}")
    if differences:
        raise ValueError(
            f"check_same_config: the work directory has another config ({'; '.join(differences)}); "
            "set these back, or use another work directory"
        )


def _to_json(config: Mapping[str, Any], caller: str) -> str:
    try:
        return json.dumps(config, indent=2, sort_keys=True) + "\n"
    except TypeError as error:
        raise ValueError(
            f"{caller}: the config holds what JSON cannot ({error}); use numbers, strings, "
            "booleans, None, lists and dicts"
        ) from None


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    # 1 and 1.0 are one number to whoever writes a config.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _abridged(value: Any) -> str:
    text = _show(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
