"""A config that starts from that of another run."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from condconv_jax import runtime
from condconv_jax.config.defaults import DEFAULTS


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
        saved = with_tuples(runtime.WorkDir(folder.parent).read_config())
    except FileNotFoundError as error:
        # A config file that raises this looks to absl like one that is not there.
        raise ValueError(f"from_run: {error}") from error
    config = DEFAULTS[saved["task"]](saved["model"]["name"])
    config.update(ConfigDict(saved))
    config.init_from = str(path)
    return config


def with_tuples(value: Any) -> Any:
    """Returns what JSON holds with tuples for lists, as configs have them."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
