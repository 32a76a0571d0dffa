"""What a sweep is: a Python file with a list of runs, each a config and what it changes in it.

    from sweep import Run

    SWEEP = [Run(f"experts{n}", "configs/...py:condconv", {"model.num_experts": n}) for n in (1, 8)]

experiments/sweeps/ holds examples; experiments/launch.py carries them out.
"""

import dataclasses
import fnmatch
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condconv_jax.names import unknown_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      name: of its folder in the work directory: letters, digits, ".", "_" and "-".
      config: FILE.py or FILE.py:ARG, as `condconv train --config` takes it.
      overrides: value by dotted key of the config, such as {"model.num_experts": 8}.

    Raises:
      ValueError: if the name cannot be a folder's.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"Run: name {self.name!r} cannot be a folder's; use letters, digits, '.', '_' and "
                "'-', a letter or digit first"
            )

    def arguments(self) -> list[str]:
        """Returns the arguments of `condconv train`, but for the work directory."""
        changes = [f"--config.{key}={value}" for key, value in self.overrides.items()]
        return [f"--config={self.config}", *changes]


def read_sweep(path: str | Path) -> list[Run]:
    """Returns the runs of a sweep file, in its order.

    Args:
      path: a Python file that defines SWEEP.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if SWEEP is missing, empty, no list of `Run`, or has a name twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_sweep: no file {str(path)!r}; pass a Python file with SWEEP")
    sweep = runpy.run_path(str(path)).get("SWEEP")
    if not isinstance(sweep, Sequence) or not all(isinstance(run, Run) for run in sweep):
        raise ValueError(f"read_sweep: {path} has no list SWEEP of Run(name, config, overrides)")
    if not sweep:
        raise ValueError(f"read_sweep: SWEEP in {path} is empty; list at least one Run")
    names = [run.name for run in sweep]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"read_sweep: {path} has more than one run named {', '.join(twice)}; each needs a "
            "folder of its own"
        )
    return list(sweep)


def choose(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """Returns the runs of these names, in the order of the sweep; all if there are no names.

    Args:
      runs: of a sweep.
      names: names or shell patterns (`fnmatch`, upper and lower case differ), such as "experts*".

    Raises:
      ValueError: for a name or pattern that no run of the sweep has.
    """
    known, chosen = [run.name for run in runs], set()
    for name in names:
        # A run's own name has none of a pattern's signs, so that it matches itself alone.
        matching = fnmatch.filter(known, name)
        if not matching:
            raise unknown_name("--only", "run", name, known)
        chosen.update(matching)
    return [run for run in runs if not names or run.name in chosen]
