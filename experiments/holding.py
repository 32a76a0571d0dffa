"""Whose a run's folder is: one process or one cluster's job at a time.

Two files of it tell. launch.lock is locked by the process of the run and by the training that it
starts: the kernel lets go when both have ended, however they ended, so that nothing is ever left to
clean up. launch.job has the number of a SLURM job from its submission until the launcher has seen
its end, since a job that waits in the queue has no process yet.
"""

import contextlib
import fcntl
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

LOCK, JOB = "launch.lock", "launch.job"


class HeldError(Exception):
    """The folder of a run is another one's; the text says whose."""


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[TextIO]:
    """Holds a run's folder; gives the file to pass to processes that are to hold it as well.

    Raises:
      HeldError: if it is held already.
    """
    # The file stays: were it removed, two runs could each lock a file of this name.
    with (workdir / LOCK).open("a+", encoding="utf-8") as file:
        # Whoever looks whether it is held does so by locking it for a moment.
        for attempt in range(10):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 9:
                    raise HeldError(_read(workdir / LOCK) or "another process") from None
                time.sleep(0.05)
        file.truncate(0)
        yield file


def sign(file: TextIO, process: int) -> None:
    """Writes into a held folder's file which process to end to have the run end."""
    file.write(f"process {process} on {socket.gethostname()}")
    file.flush()


def holders(workdirs: Mapping[str, Path]) -> dict[str, str]:
    """Returns, by name, who has a run's folder, in words; runs that nobody has are left out.

    Args:
      workdirs: of runs, by name.
    """
    found = {}
    jobs = {name: _read(path / JOB) for name, path in workdirs.items()}
    queue = queued() if any(jobs.values()) else frozenset()
    for name, workdir in workdirs.items():
        if (process := _process_of(workdir)) is not None:
            found[name] = process or "another process"
        elif queue is None and jobs[name]:
            found[name] = (
                f"job {jobs[name]}, as far as one can tell while squeue does not answer; if it has "
                f"ended, remove {workdir / JOB}"
            )
        elif queue and jobs[name] in queue:
            found[name] = f"job {jobs[name]}"
    return found


def queued() -> frozenset[str] | None:
    """Returns the numbers of our jobs that wait or run; None while the controller is silent.

    Asks `squeue`, since `sacct` knows nothing where a cluster keeps no accounts.
    """
    try:
        listed = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%i"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return None if listed.returncode else frozenset(listed.stdout.split())


def _process_of(workdir: Path) -> str | None:
    """Who holds the folder; None if nobody does."""
    with contextlib.suppress(FileNotFoundError), (workdir / LOCK).open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip()
    return None


def _read(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8").strip()
    return ""
