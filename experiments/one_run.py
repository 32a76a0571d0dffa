"""One run of a sweep in a process of its own: trains, and keeps on disk how it ended.

    python experiments/one_run.py --workdir=runs/experts/experts8 -- --config=... --config.KEY=...

What follows the dashes goes to `condconv train`. In the work directory, launch.log gets the output
of every attempt, and launch.json says how the last one stands:

  running   it trains, or was killed before it could say anything else
  finished  it trained to its last step, whose checkpoint is there
  stopped   it was asked to stop, by SIGTERM, SIGINT or SIGHUP; the next attempt goes on from its
            checkpoint
  failed    anything else

Exits with 0, 3 and 1 for the last three, and with 4, all files of the run untouched, if the folder
is held by another one (holding.py). `launch.py` starts it here and SLURM starts it elsewhere, there
once for each task: the first keeps launch.json, the others have logs of their own. SIGINT and
SIGHUP are passed on as SIGTERM, which makes training save its state.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from holding import HeldError, hold, sign

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
EXIT_STATUS = {FINISHED: 0, FAILED: 1, STOPPED: 3}
HELD_STATUS = 4


@dataclasses.dataclass(frozen=True)
class Record:
    """How the last attempt of a run stands.

    Attributes:
      state: one of the four above; "" if there was no attempt.
      arguments: of `condconv train`, but for the work directory.
      exit_status: of `condconv train`; negative for a signal, None while it runs.
      steps: total steps of a finished run.
      commit: of the code that this attempt ran, "-dirty" if it was changed; "" outside of git.
    """

    state: str = ""
    arguments: tuple[str, ...] = ()
    exit_status: int | None = None
    steps: int | None = None
    commit: str = ""


def read_record(workdir: Path) -> Record:
    """Returns the record of a run; an empty one if there was no attempt yet.

    A run whose last checkpoint is gone has not finished, whatever its record says.

    Raises:
      ValueError: if launch.json is not ours.
    """
    path = workdir / "launch.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**{**found, "arguments": tuple(found["arguments"])})
    except FileNotFoundError:
        return Record()
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(
            f"read_record: {path} was not written by one_run.py ({error}); remove it, and the run "
            "goes on from its checkpoint"
        ) from None
    if record.state == FINISHED and not _has_checkpoint(workdir, record.steps):
        return dataclasses.replace(record, state=FAILED)
    return record


def log_of(workdir: Path) -> Path:
    """Returns the log of this process' part of the run."""
    process = _process_index()
    return workdir / (f"launch.{process}.log" if process else "launch.log")


def run(workdir: Path, arguments: Sequence[str]) -> str:
    """Trains until the run ends or this process is asked to stop; returns the state.

    Args:
      workdir: of the run; made if missing.
      arguments: of `condconv train`, but for the work directory.

    Raises:
      HeldError: if another process has the run.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "condconv_jax", "train"),
        *(*arguments, f"--workdir={workdir}"),
    ]
    if _process_index():
        status, _ = _train(command, log_of(workdir), None)
        return FINISHED if status == 0 else FAILED
    record = Record(RUNNING, tuple(arguments), commit=_commit())
    with hold(workdir) as held:
        _write_record(workdir, record)
        status, was_asked_to_stop = _train(command, log_of(workdir), held)
        steps = _steps_done(workdir)
        if status == 0 and _has_checkpoint(workdir, steps):
            state = FINISHED
        elif was_asked_to_stop or (status == 0 and steps is None):
            # Status 0 before the end: it was asked by someone else, e.g. by SLURM, and saved its
            # state.
            state = STOPPED
        else:
            state = FAILED
        _write_record(
            workdir, dataclasses.replace(record, state=state, exit_status=status, steps=steps)
        )
    return state


def _train(command: Sequence[str], log: Path, held: TextIO | None) -> tuple[int, bool]:
    """Runs training to its end; returns its exit status and whether it was asked to stop.

    Args:
      command: of training.
      log: that gets its output.
      held: what holds the run's folder, for training to hold it too; None for no holder.
    """
    child: subprocess.Popen[bytes] | None = None
    asked_to_stop = passed_on = False

    def stop(number: int, _: object) -> None:
        nonlocal asked_to_stop, passed_on
        asked_to_stop = True
        # The second SIGTERM would end it at once, and SLURM has sent one to every process.
        sent_to_all = number == signal.SIGTERM and "SLURM_JOB_ID" in os.environ
        if child is not None and not sent_to_all:
            child.send_signal(signal.SIGTERM)
            passed_on = True

    # SLURM's warning that time runs out is for the process above this one; a child would die of it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Under nohup it is to have no effect.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)
    with log.open("a", encoding="utf-8") as output:
        output.write(f"$ {shlex.join(command)}\n")
        output.flush()
        # A group of its own: a terminal's Ctrl-C must not reach it twice.
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=[] if held is None else [held.fileno()],
        )
        if held is not None:
            sign(held, child.pid)
        # Asked while there was no child yet, whoever asked.
        if asked_to_stop and not passed_on:
            child.send_signal(signal.SIGTERM)
        return child.wait(), asked_to_stop


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:  # no git here
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _process_index() -> int:
    return int(os.environ.get("SLURM_PROCID", "0"))


def _steps_done(workdir: Path) -> int | None:
    # Written by `condconv train` at the very end, and removed at the start (runtime/workdir.py).
    with contextlib.suppress(FileNotFoundError):
        return json.loads((workdir / "done.json").read_text(encoding="utf-8"))["steps"]
    return None


def _has_checkpoint(workdir: Path, step: int | None) -> bool:
    # One rename makes a folder of this name, so that it is whole (runtime/restoring.py).
    return step is not None and (workdir / "checkpoints" / str(step)).is_dir()


def _write_record(workdir: Path, record: Record) -> None:
    # As runtime/atomic.py, which would import JAX into a process that only waits.
    temporary = workdir / f".launch.json.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, workdir / "launch.json")


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="of the run")
    parser.add_argument("arguments", nargs="+", metavar="-- ARGUMENT", help="of condconv train")
    parsed = parser.parse_args()
    try:
        return EXIT_STATUS[run(parsed.workdir.absolute(), parsed.arguments)]
    except HeldError as holder:
        print(f"one_run.py: {parsed.workdir} is under way already: {holder}", file=sys.stderr)
        return HELD_STATUS


if __name__ == "__main__":
    sys.exit(main())
