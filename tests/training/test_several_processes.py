"""What goes wrong in one of two real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from condconv_jax.runtime import WorkDir

SCRIPT = Path(__file__).with_name("one_fails.py")


@pytest.mark.slow
def test_what_goes_wrong_in_one_goes_wrong_in_both_at_the_same_step(tmp_path, coordinator):
    with WorkDir(tmp_path / "in_use").lock():
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
        outputs = [process.communicate(timeout=200) for process in processes]
    said = [
        dict(line.split(": ", 1) for line in out.splitlines() if ": " in line) for out, _ in outputs
    ]
    assert [process.returncode for process in processes] == [0, 0], outputs
    in_use = f"lock: {tmp_path / 'in_use'} is in use by process {os.getpid()} on "
    for name, where, text in (
        ("in_use", 0, f"ValueError: {in_use}"),
        ("data", 1, "KeyError: 'no 4.png'"),
        ("evaluation", 1, "ValueError: cannot decode val.png"),
        ("log", 0, "OSError: no space for a row"),
        ("save", 0, "OSError: no space for the digests of 2"),
    ):
        assert said[where][name].startswith(text), outputs
        reason = text.partition(": ")[2]
        told = f"OtherProcessError: process {where} failed: {reason}"
        assert said[1 - where][name].startswith(told), outputs
    assert said[0]["nothing"] == said[1]["nothing"] == "done", outputs

    def kept(name):
        return sorted(
            int(folder.name)
            for folder in WorkDir(tmp_path / name).checkpoints.iterdir()
            if (folder / "SHA256SUMS").exists()
        )

    assert kept("data") == [2, 3]  # the batch of step 4 was bad
    assert kept("evaluation") == [2, 4]
    assert kept("log") == [2]
    assert kept("save") == []
    assert kept("nothing") == [4, 6]
