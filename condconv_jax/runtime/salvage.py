"""What a run does about the checkpoints it finds, before it goes on from one of them.

Damaged ones are set aside under another name (`12.damaged`), where nothing takes them for
checkpoints but a person can look at them. A step that is being saved a second time, with its
scores, waits as `12.unscored` until the new one is whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from condconv_jax.runtime import digests, restoring

DAMAGED = ".damaged"
UNSCORED = ".unscored"


def recover(directory: Path) -> tuple[int | None, list[str]]:
    """Makes the newest checkpoint that is undamaged the newest there is.

    All processes of the run call it, before anyone else looks into the folder.

    Args:
      directory: folder of the checkpoints; need not exist.

    Returns:
      The step, None if nothing was ever saved there, and a sentence for each damaged one.

    Raises:
      DamagedCheckpointError: if there were checkpoints and none can be used.
    """
    if jax.process_index() == 0:
        _finish_replacing(directory)
    _wait_for_all("recover: replaced")
    steps = restoring.steps_in(directory)
    damaged: dict[Path, str] = {}
    usable = None
    for step in reversed(steps):
        try:
            restoring.check(directory / str(step))
        except digests.DamagedCheckpointError as error:
            damaged[directory / str(step)] = str(error).partition("; use ")[0]
        else:
            usable = step
            break
    # Deleting takes old steps: a newer one that lacks parts has lost them otherwise.
    for step, missing in restoring.incomplete_in(directory).items():
        if step > (usable or 0):
            folder = directory / str(step)
            damaged[folder] = f"checkpoint {folder} is damaged: {missing} is missing"
    before = list(directory.glob(f"*{DAMAGED}*")) if directory.is_dir() else []
    if usable is None and (damaged or before):
        found = "; ".join([*damaged.values(), *map(str, sorted(before))])
        raise digests.DamagedCheckpointError(
            f"recover: every checkpoint in {directory} is damaged ({found}); bring back a copy of "
            "one, or move the folder away to start anew"
        )
    sentences = []
    for folder, what in sorted(damaged.items()):
        aside = _free_name(folder)
        if jax.process_index() == 0:
            folder.rename(aside)
        sentences.append(f"{what}; it is {aside.name} now, step {usable} is used instead")
    _wait_for_all("recover: set aside")
    return usable, sentences


def put_by(folder: Path) -> None:
    """Renames a checkpoint that is about to be saved again; `drop` ends this, `recover` undoes it.

    All processes call it.
    """
    if jax.process_index() == 0:
        folder.rename(folder.with_name(folder.name + UNSCORED))
    _wait_for_all("put_by")


def drop(folder: Path) -> None:
    """Deletes what `put_by` kept of a checkpoint, if anything."""
    shutil.rmtree(folder.with_name(folder.name + UNSCORED), ignore_errors=True)


def _finish_replacing(directory: Path) -> None:
    for kept in directory.glob(f"*{UNSCORED}"):
        folder = kept.with_name(kept.name.removesuffix(UNSCORED))
        if restoring.is_whole(folder) and digests.written(folder):
            shutil.rmtree(kept)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            kept.rename(folder)


def _free_name(folder: Path) -> Path:
    aside, number = folder.with_name(folder.name + DAMAGED), 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}{DAMAGED}.{number}")
    return aside


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
