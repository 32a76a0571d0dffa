"""`condconv train` in a work directory on a real disk of a few hundred kB."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from condconv_jax import runtime
from condconv_jax.runtime import digests

ROOMY, NARROW = 16384, 1000  # kB: a checkpoint takes 500 to 600, and two are kept


def train(arguments, workdir):
    return subprocess.run(
        [sys.executable, "-m", "condconv_jax", "train", *arguments, f"--workdir={workdir}"],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
    )


def refused(done):
    """The one line that says why, after those of progress."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    *progress, line = done.stderr.splitlines()
    assert all(text.startswith("step ") for text in progress), done.stderr
    return line


def losses(workdir):
    return [
        (row["step"], row["loss"]) for row in runtime.read_json_lines(workdir / "metrics.jsonl")
    ]


@pytest.mark.slow
def test_a_disk_that_is_full_until_there_is_room(tiny, mount_disk, tmp_path):
    arguments = [*tiny, "--config.epochs=3"]
    assert train(arguments, tmp_path / "whole").returncode == 0
    workdir = mount_disk(NARROW) / "run"

    # Not one checkpoint fits.
    ballast = workdir.parent / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(workdir.parent).free - 200_000))
    line = refused(train(arguments, workdir))
    asks = (
        f"condconv train: save: No space left on device, {workdir}/checkpoints: a checkpoint takes"
    )
    assert line.startswith(asks)
    assert line.endswith("start the same command again, which goes on from the last checkpoint")

    # One does.
    ballast.unlink()
    assert refused(train(arguments, workdir)).startswith(asks)
    folder, step = runtime.find_checkpoint(workdir)
    assert step == 4
    digests.check(folder / "4")

    mount_disk(ROOMY)
    done = train(arguments, workdir)
    assert done.returncode == 0, done.stderr
    assert "going on from step 4" in done.stdout
    whole, again = runtime.load_tree(tmp_path / "whole"), runtime.load_tree(workdir)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, whole, again)))
    assert losses(workdir) == losses(tmp_path / "whole")
