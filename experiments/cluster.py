"""Runs of a sweep as SLURM jobs, by submitit.

A job that runs out of time saves its state, goes back into the queue and goes on from there. The
processes of one run on several nodes are tasks of one job step, in which
`runtime.initialize_distributed` finds the others. Needs the extra `slurm`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from holding import JOB, queued

# What submitit raises if sbatch fails.
_REFUSALS = (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError)

# How often a job may run out of time before its run counts as stopped.
TIMES_OUT = 100
POLL_SECONDS = 0.1


class Job:
    """The processes of one run on its nodes; submitit pickles this and calls it in each task.

    Attributes:
      command: of `one_run.py`.
      folder: where it is run, which relative paths in configs start from.
    """

    def __init__(self, command: Sequence[str], folder: Path):
        self.command = list(command)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Runs the command; returns its exit status."""
        self._process = subprocess.Popen(self.command, cwd=self.folder)
        _wait_for(self._process)
        return self._process.wait()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Has the run save its state and returns what goes on from it; the time is up.

        Called in a signal handler, while `__call__` waits.
        """
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            _wait_for(self._process)
        return submitit.helpers.DelayedSubmission(Job(self.command, self.folder))


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    """Waits until a child has ended, and leaves its exit status to `Popen.wait`.

    `Popen.wait` holds a lock as long as it waits, so that a second one in a signal handler never
    returned. And a system may give a signal to another thread, NumPy's say: Python notices it when
    the main thread runs again, not while it is blocked.
    """
    with contextlib.suppress(ChildProcessError):
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            time.sleep(POLL_SECONDS)


def submit(
    commands: Mapping[str, Sequence[str]],
    *,
    workdir: Path,
    options: Mapping[str, Any],
    cluster: str = "slurm",
) -> dict[str, submitit.Job]:
    """Submits one job for each run; returns them by the run's name.

    Args:
      commands: of `one_run.py`, by name.
      workdir: that nodes must see. Each job's number goes to `holding.JOB` in the folder of its
        run's name, submitit's own files to slurm/.
      options: of `submitit.AutoExecutor.update_parameters`: timeout_min, nodes, tasks_per_node,
        gpus_per_node, slurm_partition and the like.
      cluster: "slurm", or "local" for processes of this machine instead of jobs.

    Raises:
      ValueError: if there is no SLURM here, or it refuses a job; names those in its queue by then.
    """
    # This file is in no package that a node could import it from: the class goes with the job.
    submitit.core.utils.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        executor = submitit.AutoExecutor(
            folder=workdir / "slurm" / "%j", cluster=cluster, slurm_max_num_timeout=TIMES_OUT
        )
    except RuntimeError as error:
        raise ValueError(
            f"submit: no SLURM here ({error}); log in where sbatch is, or leave out --slurm"
        ) from error
    jobs: dict[str, submitit.Job] = {}
    for name, command in commands.items():
        folder = workdir / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            executor.update_parameters(name=name, **options)
            jobs[name] = executor.submit(Job(command, Path.cwd()))
        except _REFUSALS as error:
            queue = ", ".join(f"{name} (job {job.job_id})" for name, job in jobs.items())
            raise ValueError(
                f"submit: SLURM does not take {name}: {' '.join(str(error).split())}; in its queue "
                f"are {queue or 'none of these runs'}; the same command submits the others"
            ) from error
        if cluster == "slurm":
            (folder / JOB).write_text(jobs[name].job_id, encoding="utf-8")
    return jobs


def unfinished(jobs: Mapping[str, submitit.Job]) -> list[str]:
    """Returns the names of jobs that wait or run; all of them while the controller is silent."""
    if not all(isinstance(job, submitit.SlurmJob) for job in jobs.values()):
        return [name for name, job in jobs.items() if not job.done()]
    queue = queued()
    return [name for name, job in jobs.items() if queue is None or job.job_id in queue]
