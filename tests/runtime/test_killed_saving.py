import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from condconv_jax.runtime import Checkpoints, load_tree

SCRIPT = Path(__file__).with_name("save_and_die.py")
SURVIVES = {
    "folder": 1,
    "arrays": 1,
    "metadata": 1,
    "rename": 1,
    "delete": 2,
    "half deleted": 2,
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Returns the folder of checkpoints that a run killed at each moment left."""
    folders = {moment: tmp_path_factory.mktemp("killed") for moment in SURVIVES}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), moment],
            stderr=subprocess.PIPE,
            text=True,
        )
        for moment, folder in folders.items()
    ]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == -signal.SIGKILL, error
        assert error == ""
    return folders


@pytest.mark.parametrize("moment", SURVIVES)
def test_a_kill_while_saving_leaves_a_whole_checkpoint(killed, moment):
    folder, step = killed[moment], SURVIVES[moment]
    # The remains are there; whoever reads takes none of them for a checkpoint.
    half_written = moment in ("arrays", "metadata", "rename")
    assert (folder / "2.orbax-checkpoint-tmp").exists() == half_written
    assert (folder / "1").exists()
    assert (load_tree(folder)["w"] == step).all()

    with Checkpoints(folder, keep_last=1) as checkpoints:
        assert checkpoints.latest_step() == step
        state = checkpoints.restore({"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)})
        assert (state["w"] == step).all()
        checkpoints.save(3, {"w": state["w"] + 1})
    assert [p.name for p in folder.iterdir()] == ["3"]
