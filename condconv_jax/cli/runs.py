"""Work directories that are made of weights rather than by training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from condconv_jax import runtime, training


def check_new(verb: str, path: str) -> None:
    """Raises ValueError if a work directory holds a checkpoint already."""
    try:
        _, step = runtime.find_checkpoint(path)
    except FileNotFoundError:
        return
    raise ValueError(f"{verb}: {path} holds a checkpoint of step {step}; pass another directory")


def write_run(
    verb: str,
    path: str,
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Writes a work directory whose only checkpoint is step 0.

    Args:
      verb: that writes it, for messages.
      path: of the directory.
      config: of the network and its data.
      variables: {"params": ..., "batch_stats": ...}.
      facts: of `WorkDir.write_facts`.

    Raises:
      ValueError: if it holds a checkpoint already.
    """
    workdir = runtime.WorkDir(path)
    with workdir.lock(), runtime.Checkpoints(workdir.checkpoints) as checkpoints:
        check_new(verb, path)
        workdir.write_config(config)
        workdir.write_facts(facts)
        model_state = {key: value for key, value in variables.items() if key != "params"}
        start = np.zeros((), np.int32)
        checkpoints.save(0, training.TrainState(start, variables["params"], model_state, ()))
