"""Finding and reading checkpoints, to resume, to evaluate or to start another model from.

On disk a checkpoint is a folder named by its step in a work directory's ``checkpoints/``. While
it is written, its name ends in ``.orbax-checkpoint-tmp``; one rename makes it a checkpoint, so a
run killed in the middle leaves the previous ones whole. Before one is read its files are compared
with their digests. The functions here change nothing on disk. In a run of several processes all of
them call each.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from condconv_jax.runtime import digests

FOLDER = "checkpoints"
STATE = "state"  # the folder of the arrays within a step's folder

# A step that lacks one of these was being deleted when its process died. Orbax deletes in place
# and calls what is left a checkpoint.
_PARTS = ("_CHECKPOINT_METADATA", f"{STATE}/_METADATA", f"{STATE}/manifest.ocdbt")


def _drop_orbax_records(record: logging.LogRecord) -> bool:
    """Keeps Orbax's log to those who debug: whatever fails is raised as an exception as well."""
    debugging = logging.getLogger("absl").isEnabledFor(logging.DEBUG)
    return debugging or "orbax" not in Path(record.pathname).parts


logging.getLogger("absl").addFilter(_drop_orbax_records)


def find_checkpoint(path: str | Path, step: int | None = None) -> tuple[Path, int]:
    """Returns the folder of checkpoints that `path` means, and the step in it.

    Args:
      path: a work directory, its ``checkpoints/`` or the folder of one step in there.
      step: None for the newest, or for that of the step's folder.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      ValueError: if path is the folder of another step than `step`.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        raise FileNotFoundError(f"find_checkpoint: no folder {path}; pass a work directory")
    if not (path / FOLDER).is_dir() and path.name.isdecimal() and is_whole(path):
        if step not in (None, int(path.name)):
            raise ValueError(
                f"find_checkpoint: {path} is step {path.name}, asked for step {step}; pass the "
                "work directory, or leave out the step"
            )
        return path.parent, int(path.name)
    directory = path / FOLDER if (path / FOLDER).is_dir() else path
    steps = steps_in(directory)
    if not steps:
        raise FileNotFoundError(
            f"find_checkpoint: no checkpoint in {directory}; pass a work directory that training "
            f"has saved to, its {FOLDER}/, or the folder of a step in there"
        )
    if step is not None and step not in steps:
        raise FileNotFoundError(
            f"find_checkpoint: no step {step} in {directory}; there is {', '.join(map(str, steps))}"
        )
    return directory, steps[-1] if step is None else step


def restore(
    path: str | Path, abstract_state: Any, step: int | None = None, *, checked: bool = False
) -> Any:
    """Returns a saved state as the pytree of `abstract_state`, on its shardings.

    The numbers of processes and devices may differ from those that saved it.

    Args:
      path: as in `find_checkpoint`.
      abstract_state: pytree of `jax.ShapeDtypeStruct`; one without a sharding is put on this
        process's first device.
      step: None for the newest.
      checked: whether `check` was called already.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      DamagedCheckpointError: if its files are not what was saved; names one of them.
      ValueError: if it has other keys, shapes or dtypes; names every one of them.
    """
    directory, step = find_checkpoint(path, step)
    folder = directory / str(step)
    if not checked:
        _compare_digests(folder)
    _check_same_tree(folder, _metadata(folder), abstract_state)
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    # Without a sharding Orbax would ask for the very devices that saved it.
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=getattr(x, "sharding", None) or first
        ),
        abstract_state,
    )
    return _load(folder, placed)


def load_tree(
    path: str | Path, step: int | None = None, *, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Returns a saved state as nested dicts of numpy arrays, without knowing its structure.

    Dataclasses and namedtuples come as dicts by field name, tuples as lists.

    Args:
      path: as in `find_checkpoint`.
      step: None for the newest.
      only: top-level names to read, such as ("params", "batch_stats"); None for all.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      DamagedCheckpointError: if its files are not what was saved; names one of them.
      ValueError: if it lacks a name in `only`.
    """
    directory, step = find_checkpoint(path, step)
    folder = directory / str(step)
    _compare_digests(folder)
    return _load_tree(folder, only)


def check(folder: Path) -> None:
    """Checks that a checkpoint can be read and is what was saved.

    One without digests, whose run was killed before it wrote them, is read as a whole instead.

    Args:
      folder: of one step.

    Raises:
      DamagedCheckpointError: if it is not; names a file.
    """
    if not _compare_digests(folder):
        _load_tree(folder, None)


def _compare_digests(folder: Path) -> bool:
    """Compares in process 0, raises in all; returns whether there are digests."""
    error, code = None, 0
    if jax.process_index() == 0:
        try:
            digests.check(folder)
            code = 1 if digests.written(folder) else 0
        except digests.DamagedCheckpointError as raised:
            error, code = raised, 2
    if jax.process_count() > 1:
        code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
    if code == 2:
        raise error or digests.DamagedCheckpointError(
            f"checkpoint {folder} is damaged, as process 0 says; use another checkpoint"
        )
    return code == 1


def _load_tree(folder: Path, only: Collection[str] | None) -> dict[str, Any]:
    saved = _metadata(folder)
    names = set(saved) if only is None else set(only)
    if missing := sorted(names - set(saved)):
        raise ValueError(
            f"load_tree: {folder} has no {', '.join(missing)}; it has {', '.join(sorted(saved))}"
        )
    # Orbax leaves out the leaves that are the placeholder, but wants to see the whole structure.
    wanted = {
        name: jax.tree.map(lambda _, read=name in names: np.ndarray if read else ..., subtree)
        for name, subtree in saved.items()
    }
    loaded = _load(folder, wanted)
    return {name: loaded[name] for name in saved if name in names}


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint has all its parts."""
    return _missing(folder) is None


def _missing(folder: Path) -> str | None:
    return next((part for part in _PARTS if not (folder / part).is_file()), None)


def incomplete_in(directory: Path) -> dict[int, str]:
    """Returns the steps in a folder that lack a part, and which."""
    if not directory.is_dir():
        return {}
    folders = [item for item in directory.iterdir() if item.name.isdecimal() and item.is_dir()]
    return {int(item.name): part for item in folders if (part := _missing(item))}


def steps_in(directory: Path) -> list[int]:
    """Returns the steps in a folder, ascending, as process 0 sees it."""
    found = [
        item.step
        for item in ocp.path.step.standard_name_format().find_all(directory)
        if is_whole(Path(item.path))
    ]
    steps = np.array(sorted(found), np.int32)
    if jax.process_count() > 1:
        # Network file systems may show other processes an older listing.
        count = int(multihost_utils.broadcast_one_to_all(np.int32(len(steps))))
        steps = np.asarray(multihost_utils.broadcast_one_to_all(np.resize(steps, count)))
    return steps.tolist()


def _metadata(folder: Path) -> dict[str, Any]:
    with _named(folder):
        return ocp.metadata(folder, checkpointable_name=STATE).metadata


def _load(folder: Path, wanted: Any) -> Any:
    with _named(folder):
        return ocp.load(folder, wanted, checkpointable_name=STATE)


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise for files they cannot decode into our error."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise digests.DamagedCheckpointError(
            f"checkpoint {folder} cannot be read ({lines[0]:.200}); use another checkpoint, or a "
            "copy of this one"
        ) from error


def _check_same_tree(folder: Path, saved: Any, wanted: Any) -> None:
    """Raises ValueError that lists every key in which the two abstract trees differ."""
    have, want = _by_key(saved), _by_key(wanted)
    lines = [f"  {key}: missing, wanted {want[key]}" for key in want if key not in have]
    lines += [f"  {key}: extra, saved {have[key]}" for key in have if key not in want]
    lines += [
        f"  {key}: saved {have[key]}, wanted {want[key]}"
        for key in want
        if key in have and have[key] != want[key]
    ]
    if lines:
        raise ValueError(
            "\n".join([f"restore: {folder} does not fit the state:", *lines])
            + "\nuse the config that saved it; to start another model from its weights use "
            "load_tree"
        )


def _by_key(tree: Any) -> dict[str, str]:
    """Returns "float32(3, 4)" by "params/conv/kernel", the same for a tree and its metadata."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(x.dtype).name}{x.shape}"
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
