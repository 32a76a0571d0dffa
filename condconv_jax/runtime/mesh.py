"""Processes and devices: joining a multi-process run, the mesh, and batches on it.

The program is the same on one device and on many processes: a mesh with the axis ``data`` over
all devices, the batch split over it, everything else replicated unless a caller says otherwise.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from condconv_jax.ops.partition import BATCH_AXES, DATA_AXIS, EXPERT_AXIS

# Ours, for launchers that JAX does not know: all three or none.
_COORDINATOR = "CONDCONV_COORDINATOR"
_NUM_PROCESSES = "CONDCONV_NUM_PROCESSES"
_PROCESS_ID = "CONDCONV_PROCESS_ID"


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout_seconds: int = 100,
) -> bool:
    """Joins this process to a multi-process run when it is part of one, else does nothing.

    The first of these that is there decides: the arguments; ``CONDCONV_COORDINATOR`` (host:port),
    ``CONDCONV_NUM_PROCESSES`` and ``CONDCONV_PROCESS_ID``; a SLURM step, an Open MPI launch or a
    TPU pod of more than one process, which JAX reads itself. ``CONDCONV_COORDINATOR=auto`` leaves
    everything to JAX, for launchers not recognised here (Kubernetes, TPU VMs).
    Call it before anything that touches a device. A second call does nothing.

    Args:
      coordinator_address: host:port of process 0, the same in every process.
      num_processes: processes in the run.
      process_id: this process, from 0.
      heartbeat_timeout_seconds: seconds of silence after which a process counts as dead; also how
        long the first one to end waits for the others before it ends them.

    Returns:
      True if this process is part of a multi-process run.

    Raises:
      ValueError: if the arguments or the CONDCONV variables are incomplete or contradict each
        other, or JAX cannot read the launcher's settings.
      RuntimeError: from JAX, if its devices are started already or the processes do not find each
        other.
    """
    if jax.distributed.is_initialized():
        return True
    address, count, index = coordinator_address, num_processes, process_id
    if address is None and count is None and index is None:
        address, count, index = _read_environment()
    nothing_said = address is None and count is None and index is None
    # One that leaves with an error of its own is to end the others as soon as one that died.
    join = functools.partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=heartbeat_timeout_seconds,
        shutdown_timeout_seconds=heartbeat_timeout_seconds,
    )
    if address == "auto" or (nothing_said and _launched_as_several(os.environ)):
        try:
            join()
        except ValueError as error:
            raise ValueError(
                "initialize_distributed: several processes were launched, but JAX cannot tell how "
                f"they find each other ({error}); set {_COORDINATOR}, {_NUM_PROCESSES} and "
                f"{_PROCESS_ID} in each"
            ) from error
        return True
    if nothing_said:
        return False
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
    join(coordinator_address=address, num_processes=count, process_id=index)
    return True


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
    """Returns whether a launcher that JAX knows started more than one process.

    JAX detects the same launchers, but would also start its service for runs of one process, and
    a shell inside a SLURM allocation (no step) must not wait for tasks that nobody started.
    """
    several = (
        _count(environ, "SLURM_STEP_NUM_TASKS") > 1
        or _count(environ, "OMPI_COMM_WORLD_SIZE") > 1
        or _count(environ, "MEGASCALE_NUM_SLICES") > 1
    )
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    return several or "," in workers


def _count(environ: Mapping[str, str], variable: str) -> int:
    text = environ.get(variable, "")
    return int(text) if text.isdecimal() else 0


def make_mesh(devices: Sequence[jax.Device] | None = None, *, expert_parts: int = 1) -> Mesh:
    """Returns a mesh with the Auto axes ``data`` and, with several parts, ``expert``.

    Args:
      devices: devices of all processes; None takes every device there is.
      expert_parts: neighbouring devices that share one set of experts, each keeping a part.

    Raises:
      ValueError: if devices is empty, or expert_parts no divisor of their number.
    """
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("make_mesh: no devices; pass at least one, or None for all")
    if expert_parts < 1 or len(devices) % expert_parts:
        raise ValueError(
            f"make_mesh: expert_parts is {expert_parts}, devices are {len(devices)}; pass a divisor"
        )
    shape = {DATA_AXIS: len(devices) // expert_parts}
    if expert_parts > 1:
        shape[EXPERT_AXIS] = expert_parts
    return jax.make_mesh(
        tuple(shape.values()),
        tuple(shape),
        axis_types=(AxisType.Auto,) * len(shape),
        devices=devices,
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the leading axis over all devices of the mesh."""
    return NamedSharding(mesh, PartitionSpec(tuple(a for a in BATCH_AXES if a in mesh.shape)))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Returns the global batch on the mesh, put together from this process's part of it.

    On the CPU the arrays may share memory with `batch`: don't write to it afterwards.

    Args:
      batch: (possibly nested) dict of arrays (b_local, ...), b_local equal for all of them and
        in every process.
      mesh: from `make_mesh`.

    Returns:
      The same dict of `jax.Array` (b_local * processes, ...), split over the mesh.

    Raises:
      ValueError: if the leading axes differ, or do not divide over this process's devices.
    """
    leaves = jax.tree_util.tree_leaves_with_path(dict(batch))
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf)[:1]
        for path, leaf in leaves
    }
    if len(set(sizes.values())) != 1 or () in sizes.values():
        found = ", ".join(f"{name} {size[0] if size else 'none'}" for name, size in sizes.items())
        raise ValueError(
            f"put_batch: leading axes are [{found}]; every array needs the same leading batch axis"
        )
    (local_batch,) = next(iter(sizes.values()))
    local_devices = mesh.local_mesh.size
    if local_batch % local_devices:
        raise ValueError(
            f"put_batch: the batch has {local_batch} examples in this process, its part of the "
            f"mesh {local_devices} devices; use a multiple of {local_devices} per process "
            f"({mesh.size} over all), or pad the batch and mask it"
        )
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), dict(batch)
    )
