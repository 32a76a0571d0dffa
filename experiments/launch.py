"""Runs a sweep: all its runs that have not finished, here or on a SLURM cluster.

    python experiments/launch.py experiments/sweeps/fashion_mnist_experts.py --workdir=runs/experts
    python experiments/launch.py SWEEP.py --workdir=DIR --at-a-time=2 --only='experts*'
    python experiments/launch.py SWEEP.py --workdir=DIR --slurm --partition=gpu --time-min=600

Each run is `condconv train` in a process of its own, in DIR/NAME, with its output in
DIR/NAME/launch.log. A run that has finished is skipped; one that was stopped or killed goes on from
its checkpoint. Of N runs here at a time each has its own share of the processor's cores (on Linux).
One that is under way already, started by another launcher or waiting in a cluster's queue, is left
alone. Interrupted (Ctrl-C, SIGTERM, here a closed terminal too), the launcher has its runs save
their state and waits for them. Exits with 0 if every run finished, 1 if one failed or is left to
another launcher, 130 if they were stopped.
"""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import one_run
from cores import available_cores, split_cores, started_on
from holding import JOB, holders
from sweep import Run, choose, read_sweep

CLUSTER = "slurm"  # "local" runs the jobs' code in processes of this machine, for tests
POLL_SECONDS = 0.1
SLURM_POLL_SECONDS = 5.0  # every question costs the controller, which serves others too


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status; see the module.

    Args:
      arguments: without the program's name; None for the process' own.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _launch(_parser().parse_args(arguments), arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP.py", help="a file with SWEEP, its runs")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="of all runs")
    parser.add_argument("--at-a-time", type=int, default=1, metavar="N", help="runs here at once")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="this run, or those of a shell pattern, such as 'experts*'; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="say how the runs stand, start none")
    slurm = parser.add_argument_group("on a cluster")
    slurm.add_argument("--slurm", action="store_true", help="as SLURM jobs, all at once")
    slurm.add_argument("--partition", help="of the jobs")
    slurm.add_argument("--time-min", type=int, default=60, metavar="N", help="minutes per job")
    slurm.add_argument("--nodes", type=int, default=1, metavar="N", help="per run")
    slurm.add_argument(
        "--tasks-per-node", type=int, metavar="N", help="processes: one per GPU, or else 1"
    )
    slurm.add_argument(
        "--gpus-per-node", type=int, metavar="N", help="as the scheduler counts them"
    )
    slurm.add_argument("--cpus-per-task", type=int, metavar="N", help="cores of each process")
    return parser


def _launch(parsed: argparse.Namespace, arguments: Sequence[str]) -> int:
    if parsed.at_a_time < 1:
        raise ValueError(f"--at-a-time is {parsed.at_a_time}; pass at least 1")
    runs = choose(read_sweep(parsed.sweep), parsed.only)
    workdir = parsed.workdir.absolute()
    if parsed.list:
        held = holders({run.name: workdir / run.name for run in runs})
        for run in runs:
            state = _state(run.name, workdir, held)
            _say(f"{run.name}: {state}: condconv train {shlex.join(run.arguments())}")
        return 0
    left = [run for run in runs if not _is_finished(run, workdir / run.name)]
    held = holders({run.name: workdir / run.name for run in left})
    waiting = [run for run in left if run.name not in held]
    counts = [f"{len(waiting)} runs to do", f"{len(runs) - len(left)} finished before"]
    if held:
        counts.append(f"{len(held)} under way already")
    _say(f"{', '.join(counts)}; work directory {workdir}")
    for name in held:
        _say(f"{name}: {_state(name, workdir, held)}; not started again")
    commands = {
        run.name: [
            *(sys.executable, str(Path(one_run.__file__).absolute())),
            *(f"--workdir={workdir / run.name}", "--", *run.arguments()),
        ]
        for run in waiting
    }
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Jobs of a cluster go on without the terminal; nohup says that runs here are to as well.
    if not parsed.slurm and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with _stop_requests(numbers) as asked_to_stop:
        if parsed.slurm:
            _run_on_slurm(commands, workdir, parsed, asked_to_stop)
        else:
            _run_here(commands, workdir, parsed.at_a_time, asked_to_stop)
        stopped = asked_to_stop()
    alone = ["python", "experiments/launch.py", *_without_only(arguments)]
    status = _conclude(waiting, workdir, alone, stopped)
    return status or (1 if held else 0)


def _is_finished(run: Run, workdir: Path) -> bool:
    """Whether a run has finished.

    Raises:
      ValueError: if it has, with other arguments; names what differs.
    """
    record = one_run.read_record(workdir)
    if record.state != one_run.FINISHED:
        return False
    before, now = set(record.arguments), set(run.arguments())
    if before != now:
        gone, new = " ".join(sorted(before - now)), " ".join(sorted(now - before))
        raise ValueError(
            f"{run.name} in {workdir} has finished with {gone or 'nothing'} where the sweep now "
            f"has {new or 'nothing'}; set it back, give the run another name, or remove its folder"
        )
    return True


def _run_here(
    commands: Mapping[str, Sequence[str]],
    workdir: Path,
    at_a_time: int,
    asked_to_stop: Callable[[], bool],
) -> None:
    """Runs commands as processes of this machine, until all are over or it is asked to stop.

    Each has its own share of the cores.
    """
    waiting = list(commands)
    running: dict[str, subprocess.Popen[bytes]] = {}
    free = split_cores(available_cores(), min(at_a_time, len(waiting)))
    taken: dict[str, frozenset[int]] = {}
    while running or (waiting and not asked_to_stop()):
        while waiting and len(running) < at_a_time and not asked_to_stop():
            name = waiting.pop(0)
            taken[name] = free.pop(0)
            with started_on(taken[name]):
                # In a group of its own, so that a terminal's Ctrl-C comes from here, once.
                running[name] = subprocess.Popen(commands[name], process_group=0)
            _say(f"{name}: started, output in {workdir / name / 'launch.log'}")
        if asked_to_stop():
            _say_stopping(running)
            for process in running.values():
                process.send_signal(signal.SIGINT)
            for process in running.values():
                process.wait()
        for name in [name for name, process in running.items() if process.poll() is not None]:
            del running[name]
            free.append(taken.pop(name))
            _say(f"{name}: {_state(name, workdir)}")
        time.sleep(POLL_SECONDS)


def _run_on_slurm(
    commands: Mapping[str, Sequence[str]],
    workdir: Path,
    parsed: argparse.Namespace,
    asked_to_stop: Callable[[], bool],
) -> None:
    """Runs commands as jobs of a cluster, until all are over or it is asked to stop."""
    options = _job_options(parsed)
    try:
        import cluster
    except ImportError as error:
        raise ImportError(
            f"--slurm needs submitit ({error}); pip install 'condconv_jax[slurm]'"
        ) from error

    jobs = cluster.submit(commands, workdir=workdir, options=options, cluster=CLUSTER)
    for name, job in jobs.items():
        _say(f"{name}: job {job.job_id}, output in {workdir / name / 'launch.log'}")
    running, cancelled = list(jobs), False
    while running:
        if asked_to_stop() and not cancelled:
            _say_stopping(running)
            for name in running:
                jobs[name].cancel(check=False)
            cancelled = True
        time.sleep(SLURM_POLL_SECONDS if CLUSTER == "slurm" else POLL_SECONDS)
        left = cluster.unfinished({name: jobs[name] for name in running})
        for name in running:
            if name not in left:
                (workdir / name / JOB).unlink(missing_ok=True)
                _say(f"{name}: {_state(name, workdir)}")
        running = left


def _job_options(parsed: argparse.Namespace) -> dict[str, int | str]:
    """The options of jobs, as submitit has them.

    Raises:
      ValueError: if GPUs would be left without a process.
    """
    gpus = parsed.gpus_per_node
    tasks = (gpus or 1) if parsed.tasks_per_node is None else parsed.tasks_per_node
    # A process alone on its node drives all GPUs, several drive one each (runtime/processes.py).
    if gpus is not None and tasks not in (1, gpus):
        raise ValueError(
            f"--tasks-per-node is {tasks}, --gpus-per-node {gpus}; each process of several drives "
            f"one GPU: pass --tasks-per-node={gpus}, or 1 for a process that drives all"
        )
    given = {
        "timeout_min": parsed.time_min,
        "nodes": parsed.nodes,
        "tasks_per_node": tasks,
        "gpus_per_node": gpus,
        "cpus_per_task": parsed.cpus_per_task,
        "slurm_partition": parsed.partition,
    }
    return {name: value for name, value in given.items() if value is not None}


def _conclude(runs: Sequence[Run], workdir: Path, alone: Sequence[str], stopped: bool) -> int:
    """Says which runs failed and how to run each alone; returns the exit status."""
    status = 0
    for run in runs:
        record = one_run.read_record(workdir / run.name)
        if record.state == one_run.FINISHED:
            continue
        if record.state == one_run.STOPPED or (stopped and not record.state):
            status = status or 130
            continue
        status = 1
        if record.state == one_run.RUNNING and holders({run.name: workdir / run.name}):
            continue  # another launcher was faster
        last = _last_line(workdir / run.name / "launch.log")
        _say(f"{run.name} failed: {last}\n  {shlex.join([*alone, f'--only={run.name}'])}")
    return status


def _without_only(arguments: Sequence[str]) -> list[str]:
    """The command line without its choice of runs, in either spelling: --only=NAME, --only NAME."""
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if before != "--only" and argument.split("=")[0] != "--only"
    ]


def _state(name: str, workdir: Path, held: Mapping[str, str] | None = None) -> str:
    """How a run stands, in words; `held` is of `holders`, None to ask now."""
    held = holders({name: workdir / name}) if held is None else held
    if name in held:
        return f"under way already: {held[name]}"
    state = one_run.read_record(workdir / name).state
    if state == one_run.RUNNING:
        return "ended without a word"
    return state or "not started"


def _say_stopping(names: Sequence[str] | Mapping[str, object]) -> None:
    _say(f"stopping {', '.join(names)}: they save their state first")


def _say(text: str) -> None:
    # The terminal may be closed, but there are runs to be stopped and waited for.
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _last_line(log: Path) -> str:
    if not log.exists():
        return "it wrote nothing"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


@contextlib.contextmanager
def _stop_requests(numbers: Sequence[signal.Signals]) -> Iterator[Callable[[], bool]]:
    """Turns these signals into an answer of the function that it gives."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
