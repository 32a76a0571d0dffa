"""Work directories that are made of weights rather than by training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from condconv_jax import runtime, training


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
        if (step := checkpoints.latest_step()) is not None:
            raise ValueError(
                f"{verb}: {workdir.path} holds a checkpoint of step {step}; pass another directory"
            )
        workdir.write_config(config)
        workdir.write_facts(facts)
        model_state = {key: value for key, value in variables.items() if key != "params"}
        start = np.zeros((), np.int32)
        checkpoints.save(0, training.TrainState(start, variables["params"], model_state, ()))
