import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from condconv_jax.runtime import WorkDir, batch_sharding, make_mesh, read_json_lines, restore

SCRIPT = Path(__file__).with_name("one_of_several.py")


def test_two_processes_of_two_devices_and_then_one_of_eight(tmp_path, coordinator):
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path)],
            env=os.environ
            | {
                "CONDCONV_COORDINATOR": coordinator,
                "CONDCONV_NUM_PROCESSES": "2",
                "CONDCONV_PROCESS_ID": str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    for index, (out, error) in enumerate(outputs):
        assert out.splitlines()[-1:] == [f"done {index}"], error

    workdir = WorkDir(tmp_path)
    assert workdir.read_config() == {"processes": 2}
    # Each line once: process 1 wrote nothing.
    assert [item["m"] for item in read_json_lines(workdir.metrics)] == [3.0, 3.0]
    assert "step 1/2" in outputs[0][1]
    assert "step" not in outputs[1][1]
    place = jax.ShapeDtypeStruct((8,), np.float32, sharding=batch_sharding(make_mesh()))
    np.testing.assert_array_equal(restore(tmp_path, {"x": place})["x"], np.arange(8))
