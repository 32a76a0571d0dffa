"""A config that starts from that of another run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from condconv_jax import runtime
from condconv_jax.config.defaults import DEFAULTS
from condconv_jax.names import unknown_name


def from_run(path: str | Path) -> ConfigDict:
    """Returns the config of a run, unlocked, with the run as the weights to start from.

    Args:
      path: its work directory, made by `condconv train` or `condconv convert`, or a checkpoint in
        it.

    Raises:
      ValueError: if there is none.
    """
    try:
        folder, _ = runtime.find_checkpoint(path)
        saved = runtime.WorkDir(folder.parent).read_config()
    except FileNotFoundError as error:
        # A config file that raises this looks to absl like one that is not there.
        raise ValueError(f"from_run: {error}") from error
    config = completed(saved)
    config.init_from = str(path)
    return config


def completed(saved: Mapping[str, Any]) -> ConfigDict:
    """Returns a config that was saved, unlocked, with all keys of today.

    Keys that came later have their defaults, which are chosen so that older runs stay as they were.

    Args:
      saved: content of a config.json.

    Raises:
      ValueError: for an unknown task or network.
    """
    task, name = saved.get("task", "classification"), saved.get("model", {}).get("name")
    if task not in DEFAULTS:
        raise unknown_name("config.json: config.task", "task", task, DEFAULTS)
    # Without a network of its own, that of the task's defaults.
    config = DEFAULTS[task](*([name] if name else []))
    config.update(ConfigDict(with_tuples(saved)))
    return config


def with_tuples(value: Any) -> Any:
    """Returns what JSON holds with tuples for lists, as configs have them."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
