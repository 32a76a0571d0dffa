"""Joining a run of several processes: how many there are, which this is, where they meet.

The program is the same in one process and in many. Either it is told all three, or a launcher's
variables tell. Each process drives one GPU of its machine, or all of them where it is alone there.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Mapping

import jax

# Ours, for launchers that JAX does not know.
_COORDINATOR = "CONDCONV_COORDINATOR"
_NUM_PROCESSES = "CONDCONV_NUM_PROCESSES"
_PROCESS_ID = "CONDCONV_PROCESS_ID"

# Processes and which this is, of the run and of those on this machine: Open MPI's; MPICH's and
# Intel MPI's.
_MPI = (
    (
        *("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        *("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
)
# Where JAX finds the coordinator of Open MPI, up to version 4 (jax/_src/clusters/ompi_cluster.py).
_ORTE_URI = "OMPI_MCA_orte_hnp_uri"


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout_seconds: int = 100,
    initialization_timeout_seconds: int = 300,
) -> bool:
    """Joins this process to a multi-process run when it is part of one, else does nothing.

    The first of these that is there decides: the arguments; ``CONDCONV_COORDINATOR`` (host:port),
    ``CONDCONV_NUM_PROCESSES`` and ``CONDCONV_PROCESS_ID``; a SLURM step, a launch of Open MPI up to
    version 4 or a TPU pod of more than one process, which JAX reads itself. Of processes that MPI
    started, the coordinator's address is enough. ``CONDCONV_COORDINATOR=auto`` leaves everything to
    JAX, for launchers not recognised here (Kubernetes, TPU VMs).
    Call it before anything that touches a device. A second call does nothing.

    Args:
      coordinator_address: host:port of process 0, the same in every process.
      num_processes: processes in the run.
      process_id: this process, from 0.
      heartbeat_timeout_seconds: seconds of silence after which a process counts as dead; also how
        long the first one to end waits for the others before it ends them: one that leaves with an
        error of its own is to end them as soon as one that died.
      initialization_timeout_seconds: seconds that processes wait for one another.

    Returns:
      True if this process is part of a multi-process run.

    Raises:
      ValueError: if the arguments or variables are incomplete or contradict each other, the port is
        taken, process 0 does not answer, or JAX cannot read the launcher's settings.
      RuntimeError: from JAX, if its devices are started already.
    """
    if jax.distributed.is_initialized():
        return True
    address, count, index = coordinator_address, num_processes, process_id
    if address is None and count is None and index is None:
        address, count, index = _read_environment()
    nothing_said = address is None and count is None and index is None
    size, rank = launched_by_mpi(os.environ)
    if address == "auto" or (nothing_said and _launched_as_several(os.environ)):
        _initialize_by_launcher(heartbeat_timeout_seconds, initialization_timeout_seconds)
        return True
    if nothing_said and size is not None and size > 1:
        raise ValueError(
            f"initialize_distributed: MPI started {size} processes, which do not know where they "
            f"meet; give the address HOST:PORT of a free port of process 0 (--coordinator, or "
            f"{_COORDINATOR}), the same in each"
        )
    if nothing_said:
        return False
    if address is not None:
        count = size if count is None else count
        index = rank if index is None else index
    if address is None or count is None or index is None:
        raise ValueError(
            f"initialize_distributed: coordinator_address is {address}, num_processes {count}, "
            f"process_id {index}; give all three (as arguments, or as {_COORDINATOR}, "
            f"{_NUM_PROCESSES} and {_PROCESS_ID}) or none"
        )
    if not 0 <= index < count:
        raise ValueError(
            f"initialize_distributed: process_id is {index}, num_processes {count}; number the "
            "processes from 0 to num_processes - 1"
        )
    _check_meeting_place(address, index, initialization_timeout_seconds)
    jax.distributed.initialize(
        coordinator_address=address,
        num_processes=count,
        process_id=index,
        local_device_ids=_local_device_ids(os.environ),
        heartbeat_timeout_seconds=heartbeat_timeout_seconds,
        shutdown_timeout_seconds=heartbeat_timeout_seconds,
        initialization_timeout=initialization_timeout_seconds,
    )
    return True


def launched_by_mpi(environ: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Returns how many processes MPI's launcher started and which this is; Nones without one.

    Args:
      environ: variables of this process.
    """
    for size, rank, _, _ in _MPI:
        if environ.get(size, "").isdecimal() and environ.get(rank, "").isdecimal():
            return int(environ[size]), int(environ[rank])
    return None, None


def _initialize_by_launcher(heartbeat_timeout_seconds: int, timeout_seconds: int) -> None:
    try:
        jax.distributed.initialize(
            local_device_ids=_local_device_ids(os.environ),
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
            shutdown_timeout_seconds=heartbeat_timeout_seconds,
            initialization_timeout=timeout_seconds,
        )
    except ValueError as error:
        raise ValueError(
            "initialize_distributed: several processes were launched, but JAX cannot tell how "
            f"they find each other ({error}); set {_COORDINATOR}, {_NUM_PROCESSES} and "
            f"{_PROCESS_ID} in each"
        ) from error


def _read_environment() -> tuple[str | None, int | None, int | None]:
    """Returns address, number of processes and index from the CONDCONV variables."""
    return os.environ.get(_COORDINATOR), _number(_NUM_PROCESSES), _number(_PROCESS_ID)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is not None and not text.isdecimal():
        raise ValueError(
            f"initialize_distributed: {variable} is {text!r}; set it to a whole number"
        )
    return None if text is None else int(text)


def _launched_as_several(environ: Mapping[str, str]) -> bool:
    """Returns whether a launcher that JAX can read started more than one process.

    JAX detects the same launchers, but would also start its service for runs of one process, and
    a shell inside a SLURM allocation (no step) must not wait for tasks that nobody started.
    """
    if _count(environ, "OMPI_COMM_WORLD_SIZE") > 1:
        # Not SLURM's numbers: within a job, they are those of Open MPI's own daemons.
        return _ORTE_URI in environ
    several = (
        _count(environ, "SLURM_STEP_NUM_TASKS") > 1 or _count(environ, "MEGASCALE_NUM_SLICES") > 1
    )
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    return several or "," in workers


def _count(environ: Mapping[str, str], variable: str) -> int:
    text = environ.get(variable, "")
    return int(text) if text.isdecimal() else 0


def _local_device_ids(environ: Mapping[str, str]) -> list[int] | None:
    """Returns which GPUs of this machine are this process's; [] for all, None for JAX's choice.

    JAX gives every process of SLURM or Open MPI one GPU, even where there is but one process for
    the machine's eight, and knows no other MPI.
    """
    if "JAX_LOCAL_DEVICE_IDS" in environ:  # the user's own choice, which JAX reads
        return None
    for *_, size, rank in _MPI:
        if environ.get(size, "").isdecimal() and environ.get(rank, "").isdecimal():
            return [int(environ[rank])] if int(environ[size]) > 1 else []
    # As "1", "1(x4)" or "1,2": processes of the step on each of its nodes.
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    return [] if re.fullmatch(r"1(\(x\d+\))?", per_node) else None


def _check_meeting_place(address: str, index: int, timeout_seconds: int) -> None:
    """Checks what JAX would end the process for: a port that is taken, or that nobody opens.

    Raises:
      ValueError: if the address is no HOST:PORT, process 0 cannot have the port, or another process
        finds nobody there in time.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"initialize_distributed: coordinator_address is {address!r}; give HOST:PORT, a free "
            "port of process 0"
        )
    if index == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # its service may listen elsewhere
            raise ValueError(
                f"initialize_distributed: port {port} of process 0 is in use; give another in "
                "every process"
            ) from None
        return
    give_up = time.monotonic() + timeout_seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > give_up:
                raise ValueError(
                    f"initialize_distributed: process 0 did not answer at {address} within "
                    f"{timeout_seconds} s ({error}); start it, and give its own machine's name and "
                    "a port that others can reach"
                ) from error
        time.sleep(0.2)
