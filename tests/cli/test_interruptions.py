"""The command told to stop, refused, or one of several processes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from condconv_jax import runtime
from condconv_jax.cli import main


def start(arguments, workdir, *more, devices=1, verb="train"):
    return subprocess.Popen(
        [sys.executable, "-m", "condconv_jax", verb, *arguments, *more, f"--workdir={workdir}"],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_several(arguments, workdir, coordinator, *more, devices=2, verb="train"):
    """Two processes on this machine."""
    plain = [f"--coordinator={coordinator}", "--num-processes=2", *more]
    return [
        start(arguments, workdir, *plain, f"--process-id={index}", devices=devices, verb=verb)
        for index in range(2)
    ]


def ends(*processes):
    """The exit statuses and outputs."""
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def losses(workdir):
    path = workdir / "metrics.jsonl"
    rows = runtime.read_json_lines(path, "train") if path.exists() else []
    return {row["step"]: row["loss"] for row in rows}


def wait_for_rows(process, workdir, count=1):
    while process.poll() is None and len(losses(workdir)) < count:
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_goes_on(tiny, tmp_path, coordinator):
    # At the config's own rate of 0.2 this network's loss rises, and differences with it.
    arguments = [*tiny, "--config.checkpoint_every_epochs=0.5", SLOWLY]
    statuses, outputs = ends(*start_several(arguments, tmp_path / "two", coordinator))
    assert statuses == [0, 0], outputs
    assert "done: 4 steps" in outputs[0]
    assert "done" not in outputs[1]
    shutil.copytree(tmp_path / "two", tmp_path / "on")
    shutil.rmtree(tmp_path / "on" / "checkpoints" / "4")
    # On all eight devices of this process.
    assert main(["train", *arguments, f"--workdir={tmp_path / 'on'}"]) == 0
    assert main(["train", *arguments, f"--workdir={tmp_path / 'one'}"]) == 0
    one, two, on = (losses(tmp_path / name) for name in ("one", "two", "on"))
    assert set(one) == set(two) == set(on) == {1, 2, 3, 4}
    # Sums over the batch, in batch norm too, are added in another order. Measured: 2e-6 in the
    # first two steps, 1e-6 in the step after going on; after that this network, with 16 examples
    # to normalise by, multiplies a difference by about 100 with every step. All steps are compared
    # in float64, tests/training/test_runs_in_float64.py.
    for step in (1, 2):
        assert two[step] == pytest.approx(one[step], rel=1e-5)
    assert on[3] == pytest.approx(two[3], rel=1e-5)


SLOWLY = "--config.schedule.learning_rate=0.01"


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--best"]], ids=["last", "best"])
def test_two_processes_evaluate_as_one(trained, coordinator, capsys, more):
    processes = start_several(more, trained, coordinator, verb="evaluate")
    statuses, outputs = ends(*processes)
    assert statuses == [0, 0], outputs
    assert main(["evaluate", *more, f"--workdir={trained}"]) == 0
    # 20 images in batches of 16: padding is in the second process' part only.
    alone = capsys.readouterr().out
    assert "examples   20" in alone
    # The four digits that are printed; sums over the images are added in another order.
    assert alone in outputs[0]
    assert "top1" not in outputs[1]


@pytest.mark.slow
def test_sigterm_to_one_of_several_stops_both_at_the_same_step(tiny, tmp_path, coordinator):
    processes = start_several([*tiny, "--config.epochs=500"], tmp_path, coordinator)
    wait_for_rows(processes[0], tmp_path)
    processes[1].send_signal(signal.SIGTERM)
    statuses, outputs = ends(*processes)
    assert statuses == [0, 0], outputs
    step = runtime.find_checkpoint(tmp_path)[1]
    said = f"stopped by SIGTERM at step {step}; the same command goes on from there"
    assert said in outputs[0]
    assert max(losses(tmp_path)) == step


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_end_when_one_is_killed(tiny, tmp_path, coordinator, victim):
    arguments = [*tiny, "--config.epochs=500"]
    processes = start_several(arguments, tmp_path, coordinator, "--heartbeat-timeout=10")
    wait_for_rows(processes[0], tmp_path)
    processes[victim].kill()
    statuses, outputs = ends(*processes)
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] not in (0, None)
    assert "another task died" in outputs[1 - victim]


def test_ctrl_c_saves_and_the_work_directory_was_in_use(shallow, tmp_path, refused):
    arguments = [*shallow, "--config.epochs=500"]
    runtime.WorkDir(tmp_path).write_done(4)  # as if the run had got there
    process = start(arguments, tmp_path)
    wait_for_rows(process, tmp_path)
    line = refused("train", *arguments, f"--workdir={tmp_path}")
    assert f"{tmp_path} is in use by process {process.pid} on " in line
    process.send_signal(signal.SIGINT)
    (status,), (output,) = ends(process)
    assert status == 0, output
    step = runtime.find_checkpoint(tmp_path)[1]
    assert output.splitlines()[-1] == (
        f"stopped by SIGINT at step {step}; the same command goes on from there"
    )
    assert not (tmp_path / "done.json").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--num-processes=2"], "--coordinator, --process-id missing; pass all of"),
        (["--coordinator=localhost:1"], "--num-processes, --process-id missing; pass all of"),
        (
            ["--coordinator=localhost", "--num-processes=2", "--process-id=1"],
            "coordinator_address is 'localhost'; give HOST:PORT",
        ),
        (
            ["--coordinator=localhost:1", "--num-processes=2", "--process-id=2"],
            "process_id is 2, num_processes 2; number the processes from 0",
        ),
    ],
)
def test_processes_that_cannot_be(tiny, tmp_path, refused, given, words):
    assert words in refused("train", *tiny, *given, f"--workdir={tmp_path}")
