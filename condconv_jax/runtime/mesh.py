"""The mesh of all devices of all processes, and batches on it.

The program is the same on one device and on many processes: a mesh with the axis ``data`` over
all devices, the batch split over it, everything else replicated unless a caller says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from condconv_jax.ops.partition import BATCH_AXES, DATA_AXIS, EXPERT_AXIS


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

    def put(array: Any) -> jax.Array:
        if isinstance(array, jax.Array) and jax.process_count() == 1:
            return jax.device_put(array, sharding)  # not by way of the host
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    return jax.tree.map(put, dict(batch))
