"""The same run on other processes and devices, where rounding is too small to hide anything.

Sums over the batch are added in another order, and what follows multiplies the difference: in
float32 the losses of a few steps later say nothing (tests/cli/test_interruptions.py).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from condconv_jax.runtime import read_json_lines

SCRIPT = Path(__file__).with_name("in_float64.py")
EIGHT_STEPS = [
    "--config.model.width=0.1",
    "--config.model.num_experts=2",
    "--config.model.begin_layer=14",
    "--config.model.early_strides=(2,2,2)",
    # Of 16 examples some channels have hardly any variance, and dividing by that, step after step,
    # multiplies a difference; so do large steps.
    "--config.model.batch_norm_epsilon=0.1",
    "--config.data.train=train[:128]",
    "--config.data.eval=test[:20]",
    "--config.batch_size=16",
    "--config.eval_batch_size=16",
    "--config.epochs=1",
    "--config.schedule.warmup_epochs=0.25",
    "--config.schedule.learning_rate=0.001",
    "--config.log_every=1",
    "--config.checkpoint_every_epochs=0.5",
]


def start(workdir, devices, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(workdir), *EIGHT_STEPS],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes, devices):
    outputs = [process.communicate() for process in processes]
    for index, (out, error) in enumerate(outputs):
        said = f"done {index} of {len(processes)}, {devices} devices"
        assert out.splitlines()[-1:] == [said], error


def losses(workdir):
    return {row["step"]: row["loss"] for row in read_json_lines(workdir / "metrics.jsonl", "train")}


@pytest.mark.slow
def test_two_processes_train_as_one_and_runs_go_on_on_other_devices(tmp_path, coordinator):
    four = tmp_path / "four"
    finish(start(four, 4), devices=4)
    two = tmp_path / "two"
    environment = {"CONDCONV_COORDINATOR": coordinator, "CONDCONV_NUM_PROCESSES": "2"}
    several = [start(two, 2, CONDCONV_PROCESS_ID=str(i), **environment) for i in range(2)]
    finish(*several, devices=4)
    # Measured: 8e-16 in the first step, 7e-11 in the last.
    assert losses(two) == pytest.approx(losses(four), rel=1e-9)

    for devices in (1, 4):
        on = tmp_path / f"on{devices}"
        shutil.copytree(two, on)
        shutil.rmtree(on / "checkpoints" / "8")
        finish(start(on, devices), devices=devices)
        # Steps 5 to 8 are its own. Measured: 4e-15 in the first, 5e-14 at most.
        assert losses(on) == pytest.approx(losses(two), rel=1e-11)
