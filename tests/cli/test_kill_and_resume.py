"""A run killed with SIGKILL and started again ends with the weights of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from condconv_jax import runtime


def start(shallow, workdir, epochs=5):
    arguments = [a for a in shallow if not a.startswith("--config.epochs")]
    arguments += [f"--config.epochs={epochs}", "--config.checkpoint_every_epochs=0.5"]
    return subprocess.Popen(
        [sys.executable, "-m", "condconv_jax", "train", *arguments,
         f"--workdir={workdir}"],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def checkpoints(workdir):
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def test_killed_run_ends_with_the_weights_of_an_undisturbed_one(shallow, tmp_path):
    # Meanwhile, on another core.
    undisturbed = start(shallow, tmp_path / "whole")
    process = start(shallow, tmp_path / "parts")
    while process.poll() is None and not checkpoints(tmp_path / "parts"):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
    assert max(checkpoints(tmp_path / "parts")) < 20
    assert "going on from step" in finish(start(shallow, tmp_path / "parts"))
    finish(undisturbed)

    whole, parts = (runtime.load_tree(tmp_path / name) for name in ("whole", "parts"))
    assert int(parts["step"]) == 20
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    # One row for each step, as if nothing had happened.
    for name in ("whole", "parts"):
        rows = runtime.read_json_lines(tmp_path / name / "metrics.jsonl", "train")
        assert [row["step"] for row in rows] == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some forty starts of a training
def test_killed_twenty_times_at_random_moments():
    """The figures of docs/reliability.md, which the script ends with 1 without."""
    script = Path(__file__).parents[2] / "benchmarks" / "reliability.py"
    done = subprocess.run(
        [sys.executable, str(script), "kills", "--kills=20", "--seed=0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
