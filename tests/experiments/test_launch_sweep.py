"""Sweep files, and the command that runs them, with a stand-in for training."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cores
import holding
import launch
import one_run
import pytest
import sweep
from waiting import wait_until

LAUNCH = Path(launch.__file__)


def runs_of(**overrides):
    return f"SWEEP = [Run(n, 'c.py', o) for n, o in {overrides!r}.items()]"


def states(workdir):
    return {path.parent.name: json.loads(path.read_text())["state"] for path in
            sorted(workdir.glob("*/launch.json"))}  # fmt: skip


def start(path, workdir, *arguments):
    """Starts the launcher as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), str(path), f"--workdir={workdir}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def closed_terminal():
    """A closed terminal stops what a test starts, also where nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_arguments_of_a_run():
    run = sweep.Run("a", "configs/x.py:y", {"model.num_experts": 8, "model.strides": (2, 1)})
    assert run.arguments() == [
        "--config=configs/x.py:y",
        "--config.model.num_experts=8",
        "--config.model.strides=(2, 1)",
    ]


def test_example_has_a_run_for_each_number_of_experts():
    runs = sweep.read_sweep("experiments/sweeps/fashion_mnist_experts.py")
    assert [run.overrides["model.num_experts"] for run in runs] == [1, 2, 4, 8, 16, 32]
    assert len({run.name for run in runs}) == 6


@pytest.mark.parametrize("path", sorted(Path("experiments/sweeps").glob("*.py")), ids=str)
def test_every_sweep_is_of_configs_and_keys_that_are_there(path):
    from condconv_jax.cli.flags import config_from_file

    for run in sweep.read_sweep(path):
        config, *overrides = run.arguments()
        config_from_file(config.removeprefix("--config="), overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no list SWEEP of Run"),
        ("SWEEP = ['a']", r"has no list SWEEP of Run"),
        ("SWEEP = []", r"SWEEP in .* is empty; list at least one Run"),
        ("SWEEP = [Run('a', 'c.py'), Run('a', 'd.py')]", r"more than one run named a"),
        ("SWEEP = [Run('a/b', 'c.py')]", r"Run: name 'a/b' cannot be a folder's"),
        ("SWEEP = [Run('..', 'c.py')]", r"Run: name '..' cannot be a folder's"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(sweep_file, text, message):
    with pytest.raises(ValueError, match=message):
        sweep.read_sweep(sweep_file(text))


def test_missing_sweeps_and_unknown_runs_are_named(sweep_file, tmp_path, capsys):
    assert launch.main(["nowhere.py", f"--workdir={tmp_path}"]) == 1
    assert "launch.py: read_sweep: no file 'nowhere.py'" in capsys.readouterr().err
    path = sweep_file(runs_of(experts8={}))
    assert launch.main([str(path), f"--workdir={tmp_path}", "--only=expert8"]) == 1
    assert (
        "unknown run 'expert8'; choose one of 'experts8'; did you mean" in capsys.readouterr().err
    )
    assert launch.main([str(path), f"--workdir={tmp_path}", "--at-a-time=0"]) == 1
    assert "--at-a-time is 0; pass at least 1" in capsys.readouterr().err


def test_runs_are_chosen_by_name_and_by_pattern(sweep_file, tmp_path, capsys):
    runs = sweep.read_sweep(sweep_file(runs_of(a_1={}, b_1={}, a_2={}, A_3={})))

    def chosen(*names):
        return [run.name for run in sweep.choose(runs, names)]

    assert chosen() == ["a_1", "b_1", "a_2", "A_3"]
    assert chosen("a_*") == ["a_1", "a_2"]
    assert chosen("?_1", "A_3") == ["a_1", "b_1", "A_3"]
    assert chosen("a_2", "[ab]_1") == ["a_1", "b_1", "a_2"]
    with pytest.raises(ValueError, match=r"--only: unknown run 'c_\*'; choose one of 'A_3', 'a_1'"):
        chosen("a_1", "c_*")


@pytest.mark.parametrize(
    ("given", "tasks"),
    [
        ([], 1),
        (["--gpus-per-node=8"], 8),
        (["--gpus-per-node=8", "--tasks-per-node=1"], 1),
        (["--tasks-per-node=3"], 3),
    ],
)
def test_jobs_have_a_process_for_each_gpu(given, tasks):
    parsed = launch._parser().parse_args(["s.py", "--workdir=w", "--slurm", *given])
    assert launch._job_options(parsed)["tasks_per_node"] == tasks


def test_gpus_without_a_process_are_refused(sweep_file, tmp_path, capsys):
    arguments = [str(sweep_file(runs_of(a={}))), f"--workdir={tmp_path}", "--slurm"]
    assert launch.main([*arguments, "--gpus-per-node=8", "--tasks-per-node=2"]) == 1
    assert "pass --tasks-per-node=8, or 1 for a process that" in capsys.readouterr().err


def test_cores_are_split_evenly():
    assert cores.split_cores({5, 2, 3, 9}, 2) == [{2, 3}, {5, 9}]
    assert [len(part) for part in cores.split_cores(range(7), 3)] == [2, 2, 3]
    assert cores.split_cores({4, 6}, 3) == [{4}, {6}, {4}]
    assert cores.split_cores((), 2) == [set(), set()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given on Linux alone")
def test_runs_side_by_side_have_cores_of_their_own(stand_in, sweep_file, tmp_path):
    mine, workdir = os.sched_getaffinity(0), tmp_path / "runs"
    if len(mine) < 2:
        pytest.skip("one core has no parts")
    notes = {"notes_its_cores": 1}
    path = sweep_file(
        runs_of(a={**notes, "sleeps": 1}, b=notes, c=notes, d={**notes, "fails": "so"})
    )
    first, second = cores.split_cores(mine, 2)

    launcher = start(path, workdir, "--at-a-time=2")
    wait_until(lambda: states(workdir).get("d") == "failed")
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    seen = {name: set(json.loads((workdir / name / "cores").read_text())) for name in "abcd"}
    # a holds its share all the time, the others have the second one after another.
    assert seen == {"a": first, "b": second, "c": second, "d": second}

    assert launch.main([str(path), f"--workdir={tmp_path / 'one'}", "--only=b"]) == 0
    assert set(json.loads((tmp_path / "one" / "b" / "cores").read_text())) == mine
    assert os.sched_getaffinity(0) == mine


def test_where_cores_cannot_be_given_runs_use_any(stand_in, sweep_file, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    path = sweep_file(runs_of(a={}, b={}))
    assert launch.main([str(path), f"--workdir={tmp_path / 'runs'}", "--at-a-time=2"]) == 0


def test_runs_finish_are_listed_and_skipped(stand_in, sweep_file, tmp_path, capsys):
    path, workdir = sweep_file(runs_of(a={}, b={"x": 1}, c={})), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}", "--only=a", "--only", "b"]) == 0
    assert states(workdir) == {"a": "finished", "b": "finished"}
    record = one_run.read_record(workdir / "b")
    expected = one_run.Record("finished", ("--config=c.py", "--config.x=1"), 0, 4)
    assert dataclasses.replace(record, commit="") == expected
    git = subprocess.run(["git", "describe", "--always"], capture_output=True, text=True)
    assert record.commit.removesuffix("-dirty") == git.stdout.strip()
    log = (workdir / "b" / "launch.log").read_text()
    assert log.startswith(f"$ {sys.executable} -m condconv_jax train --config=c.py --config.x=1")
    assert "training c.py" in log

    capsys.readouterr()
    assert launch.main([str(path), f"--workdir={workdir}", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: finished: condconv train --config=c.py",
        "b: finished: condconv train --config=c.py --config.x=1",
        "c: not started: condconv train --config=c.py",
    ]
    assert states(workdir) == {"a": "finished", "b": "finished"}
    assert launch.main([str(path), f"--workdir={workdir}", "--at-a-time=3"]) == 0
    assert "1 runs to do, 2 finished before" in capsys.readouterr().out
    assert (workdir / "b" / "launch.log").read_text() == log


def test_finished_runs_with_other_arguments_are_refused(stand_in, sweep_file, tmp_path, capsys):
    path, workdir = sweep_file(runs_of(a={"x": 1, "y": 5})), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}"]) == 0
    path = sweep_file(runs_of(a={"x": 2, "y": 5}))
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    assert (
        f"launch.py: a in {workdir / 'a'} has finished with --config.x=1 where the sweep now has "
        "--config.x=2" in capsys.readouterr().err
    )


def test_failed_runs_are_named_and_can_be_run_alone(stand_in, sweep_file, tmp_path, capsys):
    path, workdir = sweep_file(runs_of(bad={"fails": "no such data"}, good={})), tmp_path / "runs"
    arguments = [str(path), f"--workdir={workdir}", "--only", "good", "--only=bad", "--at-a-time=2"]
    assert launch.main(arguments) == 1
    assert states(workdir) == {"bad": "failed", "good": "finished"}
    failed, again = capsys.readouterr().out.splitlines()[-2:]
    assert failed == "bad failed: condconv train: no such data"
    expected = ["python", "experiments/launch.py", str(path), f"--workdir={workdir}"]
    assert shlex.split(again) == [*expected, "--at-a-time=2", "--only=bad"]

    sweep_file(runs_of(bad={}, good={}))
    assert launch.main(shlex.split(again)[2:]) == 0
    assert states(workdir) == {"bad": "finished", "good": "finished"}


def test_exit_status_0_without_the_last_checkpoint_is_not_finished(stand_in, sweep_file, tmp_path):
    path, workdir = sweep_file(runs_of(a={"loses_its_checkpoint": 1})), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    assert states(workdir) == {"a": "failed"}


def test_exit_status_0_before_the_end_is_not_finished(stand_in, sweep_file, tmp_path):
    # Asked by someone else, such as SLURM, it saved its state.
    path, workdir = sweep_file(runs_of(a={"stops_early": 1})), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}"]) == 130
    assert states(workdir) == {"a": "stopped"}


def test_finished_runs_whose_checkpoint_is_gone_are_run_again(stand_in, sweep_file, tmp_path):
    path, workdir = sweep_file(runs_of(a={})), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}"]) == 0
    (workdir / "a" / "checkpoints" / "4").rmdir()
    assert one_run.read_record(workdir / "a").state == "failed"
    assert launch.main([str(path), f"--workdir={workdir}"]) == 0
    assert (workdir / "a" / "checkpoints" / "4").is_dir()


def test_files_of_others_are_not_taken_for_records(sweep_file, tmp_path, capsys):
    workdir = tmp_path / "runs"
    (workdir / "a").mkdir(parents=True)
    (workdir / "a" / "launch.json").write_text('{"command": 3}')
    path = sweep_file(runs_of(a={}))
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    assert "launch.json was not written by one_run.py" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_launcher_stops_its_runs(stand_in, sweep_file, tmp_path, number):
    path, workdir = sweep_file(runs_of(a={"sleeps": 1}, b={"sleeps": 1}, c={})), tmp_path / "runs"
    launcher = start(path, workdir, "--at-a-time=2")
    wait_until(lambda: all((workdir / name / "asleep").exists() for name in "ab"))
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 130
    assert "stopping a, b: they save their state first" in output
    # Each was asked and said so; nothing was started any more.
    assert states(workdir) == {"a": "stopped", "b": "stopped"}
    for name in "ab":
        last = (workdir / name / "launch.log").read_text().splitlines()[-1]
        assert last == "stopped by SIGTERM at step 3"


def test_a_killed_run_is_not_taken_for_a_running_one(stand_in, sweep_file, tmp_path, capsys):
    path, workdir = sweep_file(runs_of(a={})), tmp_path / "runs"
    (workdir / "a").mkdir(parents=True)
    one_run._write_record(workdir / "a", one_run.Record("running", ("--config=c.py",)))
    assert launch.main([str(path), f"--workdir={workdir}"]) == 0
    assert states(workdir) == {"a": "finished"}


def test_a_launcher_whose_terminal_is_closed_stops_its_runs(stand_in, sweep_file, tmp_path):
    path, workdir = sweep_file(runs_of(a={"sleeps": 1})), tmp_path / "runs"
    launcher = start(path, workdir)
    wait_until((workdir / "a" / "asleep").exists)
    launcher.stdout.close()  # so that it cannot say what it does
    launcher.send_signal(signal.SIGHUP)
    launcher.wait(timeout=30)
    assert states(workdir) == {"a": "stopped"}


def test_under_nohup_a_closed_terminal_stops_nothing(stand_in, sweep_file, tmp_path):
    path, workdir = sweep_file(runs_of(a={"sleeps": 1})), tmp_path / "runs"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        launcher = start(path, workdir)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until((workdir / "a" / "asleep").exists)
    launcher.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        launcher.wait(timeout=0.5)
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    assert states(workdir) == {"a": "stopped"}


@pytest.fixture
def running(stand_in, tmp_path):
    """A run that another launcher has started: its process and its folder."""
    workdir = tmp_path / "runs" / "a"
    command = [sys.executable, one_run.__file__, f"--workdir={workdir}", "--"]
    process = subprocess.Popen([*command, "--config=c.py", "--config.sleeps=1"])
    wait_until((workdir / "asleep").exists)
    yield process, workdir
    if (training := int((workdir / "process").read_text())) in alive(training):
        os.kill(training, signal.SIGTERM)
    process.wait(timeout=30)


def alive(*processes):
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, processes))],
                            capture_output=True, text=True)  # fmt: skip
    found = [line.split() for line in listed.stdout.splitlines()]
    return [int(process) for process, state in found if not state.startswith("Z")]


def test_a_run_under_way_is_left_alone(running, sweep_file, tmp_path, capfd):
    _, folder = running
    path, workdir = sweep_file(runs_of(a={"sleeps": 1}, b={})), tmp_path / "runs"
    before = (folder / "launch.json").read_text()
    log = (folder / "launch.log").read_text()
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    printed = capfd.readouterr().out
    training = (folder / "process").read_text()
    assert "1 runs to do, 0 finished before, 1 under way already" in printed
    assert f"a: under way already: process {training} on " in printed
    assert "failed" not in printed
    assert states(workdir) == {"a": "running", "b": "finished"}
    assert launch.main([str(path), f"--workdir={workdir}", "--list"]) == 0
    assert "a: under way already: process" in capfd.readouterr().out

    # Started all the same, by a launcher that looked a moment too early, it touches nothing.
    again = [sys.executable, one_run.__file__, f"--workdir={folder}", "--", "--config=c.py"]
    assert subprocess.run(again).returncode == one_run.HELD_STATUS
    assert f"{folder} is under way already: process {training} on" in capfd.readouterr().err
    assert (folder / "launch.json").read_text() == before
    assert (folder / "launch.log").read_text() == log


def test_training_left_behind_is_under_way(running, sweep_file, tmp_path, capsys):
    process, folder = running
    process.kill()
    process.wait()
    path, workdir = sweep_file(runs_of(a={"sleeps": 1})), tmp_path / "runs"
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    assert "a: under way already: process" in capsys.readouterr().out
    training = int((folder / "process").read_text())
    os.kill(training, signal.SIGTERM)
    wait_until(lambda: not alive(training))
    assert not holding.holders({"a": folder})


def test_a_signal_before_training_starts_is_passed_on(stand_in, tmp_path, monkeypatch):
    started = subprocess.Popen

    def start_late(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return started(*arguments, **options)

    before = {number: signal.getsignal(number) for number in
              (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)}  # fmt: skip
    monkeypatch.setattr(subprocess, "Popen", start_late)
    monkeypatch.setattr(one_run, "_commit", lambda: "")  # git is a process too
    try:
        state = one_run.run(tmp_path / "a", ["--config=c.py", "--config.sleeps=1"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert state == "stopped"


@pytest.fixture
def fake_squeue(tmp_path, monkeypatch):
    """Has `squeue` print what it is given, or fail with None."""

    def write(text):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = "exit 1" if text is None else f"echo '{text}'"
        (folder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return write


def test_a_job_in_the_queue_is_left_alone(stand_in, fake_squeue, sweep_file, tmp_path, capsys):
    path, workdir = sweep_file(runs_of(a={})), tmp_path / "runs"
    (workdir / "a").mkdir(parents=True)
    (workdir / "a" / holding.JOB).write_text("12")
    fake_squeue("11\n12")
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    assert "a: under way already: job 12; not started again" in capsys.readouterr().out
    fake_squeue(None)
    assert launch.main([str(path), f"--workdir={workdir}"]) == 1
    assert f"if it has ended, remove {workdir / 'a' / 'launch.job'}" in capsys.readouterr().out
    assert states(workdir) == {}
    fake_squeue("112")
    assert launch.main([str(path), f"--workdir={workdir}"]) == 0
    assert states(workdir) == {"a": "finished"}
