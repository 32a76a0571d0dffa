"""The launcher with `condconv train` itself: here, through submitit, and through a real SLURM."""

import json
import os
import shutil
import signal
import subprocess
import sys

import launch
import one_run
import pytest
from waiting import wait_until

submitit = pytest.importorskip("submitit", reason="submitit is not installed: extra slurm")

import cluster  # noqa: E402 - imports submitit


def finished_steps(workdir):
    records = {path.parent.name: json.loads(path.read_text())
               for path in workdir.glob("*/launch.json")}  # fmt: skip
    assert {record["state"] for record in records.values()} <= {"finished"}
    return {name: record["steps"] for name, record in records.items()}


@pytest.mark.slow
def test_runs_train_here(write_sweep, one_device, tmp_path, capsys):
    workdir = tmp_path / "runs"
    path = write_sweep(two={}, three={"model.num_experts": 3})
    assert launch.main([str(path), f"--workdir={workdir}"]) == 0
    assert finished_steps(workdir) == {"two": 4, "three": 4}
    assert "done: 4 steps" in (workdir / "two" / "launch.log").read_text()


def test_the_code_of_jobs_runs_through_submitit(
    stand_in, sweep_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(launch, "CLUSTER", "local")
    workdir = tmp_path / "runs"
    path = sweep_file(
        """SWEEP = [Run("good", "c.py"), Run("bad", "c.py", {"fails": "no such data"})]"""
    )
    assert launch.main([str(path), f"--workdir={workdir}", "--slurm", "--time-min=10"]) == 1
    printed = capsys.readouterr().out
    assert "good: finished" in printed
    assert "bad failed: condconv train: no such data" in printed
    assert len(list((workdir / "slurm").glob("*/*_submitted.pkl"))) == 2


def parent_of(process):
    found = subprocess.run(["ps", "-o", "ppid=", "-p", str(process)], capture_output=True)
    return int(found.stdout)


def test_a_job_whose_time_is_up_saves_its_state_and_starts_again(stand_in, tmp_path):
    workdir = tmp_path / "runs" / "a"
    command = [sys.executable, one_run.__file__, f"--workdir={workdir}", "--"]
    jobs = cluster.submit(
        {"a": [*command, "--config=c.py", "--config.sleeps=1"]},
        workdir=workdir.parent,
        options={"timeout_min": 10},
        cluster="local",
    )
    wait_until((workdir / "asleep").exists)
    (workdir / "asleep").unlink()
    training = int((workdir / "process").read_text())
    # What SLURM is told to send to a job before its time is up.
    os.kill(parent_of(parent_of(training)), signal.SIGUSR2)
    wait_until((workdir / "asleep").exists)
    assert cluster.unfinished(jobs) == ["a"]
    os.kill(int((workdir / "process").read_text()), signal.SIGTERM)  # of the second start
    wait_until(lambda: not cluster.unfinished(jobs))
    log = (workdir / "launch.log").read_text().splitlines()
    said = [line for line in log if not line.startswith("$")]
    assert said == ["training c.py", "stopped by SIGTERM at step 3"] * 2
    assert one_run.read_record(workdir).state == "stopped"


def test_without_slurm_its_absence_is_named(write_sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = write_sweep(two={})
    assert launch.main([str(path), f"--workdir={tmp_path / 'runs'}", "--slurm"]) == 1
    assert "launch.py: submit: no SLURM here" in capsys.readouterr().err


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Has `sbatch` take one job, number 7, which stays in the queue, and refuse the next."""
    programs = {
        "srun": "exit 1",
        "squeue": "echo 7",
        "sbatch": f"""mkdir {tmp_path / "taken"} 2>&- && echo Submitted batch job 7 && exit
            echo sbatch: error: invalid partition specified: typo >&2; exit 1""",
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_jobs_queued_before_a_refusal_are_named_and_left_alone(
    fake_slurm, sweep_file, tmp_path, capsys
):
    path = sweep_file("SWEEP = [Run(name, 'c.py') for name in 'ab']")
    workdir = tmp_path / "runs"
    arguments = [str(path), f"--workdir={workdir}", "--slurm", "--partition=typo"]
    assert launch.main(arguments) == 1
    refusal = capsys.readouterr().err.splitlines()[-1]
    assert refusal.startswith("launch.py: submit: SLURM does not take b: ")
    assert "invalid partition specified: typo" in refusal
    assert "in its queue are a (job 7)" in refusal

    assert launch.main(arguments) == 1
    printed = capsys.readouterr()
    assert "a: under way already: job 7; not started again" in printed.out
    assert "SLURM does not take b" in printed.err
    assert "in its queue are none of these runs" in printed.err


def test_without_submitit_its_extra_is_named(write_sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cluster", None)
    path = write_sweep(two={})
    assert launch.main([str(path), f"--workdir={tmp_path / 'runs'}", "--slurm"]) == 1
    assert "pip install 'condconv_jax[slurm]'" in capsys.readouterr().err


@pytest.fixture
def slurm():
    """Skips where no SLURM controller answers."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch: SLURM is not installed (experiments/slurm/start_one_node.sh)")
    answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True)
    if "is UP" not in answer.stdout:
        pytest.skip("no SLURM controller answers (experiments/slurm/start_one_node.sh start)")


@pytest.mark.slow
def test_runs_train_as_slurm_jobs(slurm, write_sweep, one_device, tmp_path, capsys):
    path, workdir = write_sweep(two={}, bad={"epochs": -1}), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}", "--slurm", "--time-min=10"]) == 1
    printed = capsys.readouterr().out
    assert "two: finished" in printed
    assert "bad failed: condconv train: config.epochs is -1" in printed
    script = next((workdir / "slurm").glob("*/*_submission.sh")).read_text()
    assert "#SBATCH --time=10" in script
    record = json.loads((workdir / "two" / "launch.json").read_text())
    assert (record["state"], record["steps"]) == ("finished", 4)


@pytest.mark.slow
def test_one_run_trains_in_two_slurm_tasks(slurm, write_sweep, one_device, tmp_path):
    path, workdir = write_sweep(two={}), tmp_path / "runs"
    arguments = [str(path), f"--workdir={workdir}", "--slurm", "--time-min=10"]
    assert launch.main([*arguments, "--tasks-per-node=2"]) == 0
    assert finished_steps(workdir) == {"two": 4}
    # Both tasks had a part in it, and one alone speaks.
    assert (workdir / "two" / "launch.1.log").exists()
    assert "done: 4 steps" in (workdir / "two" / "launch.log").read_text()
    assert "done:" not in (workdir / "two" / "launch.1.log").read_text()
