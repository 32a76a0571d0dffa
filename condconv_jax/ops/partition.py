"""Running an op on a mesh: every device its own examples, nothing gathered."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

# The mesh axes that the batch is split over, in this order. `runtime.make_mesh` makes "data" only;
# a mesh of one's own may have "expert" too.
BATCH_AXES = ("data", "expert")


def over_batch(
    op: Callable[..., Array], batched: tuple[Array, ...], replicated: tuple[Array, ...]
) -> Array:
    """Returns `op(*batched, *replicated)`, each device computing its own examples.

    Per-example kernels make the batch a loop or a group count, and XLA's partitioner answers
    either by gathering every activation on every device. Inside `jax.shard_map` there is nothing
    for it to decide. The gradient of each replicated array is one all-reduce.

    On a mesh with Auto axes the batch is split over as many of `BATCH_AXES` as divide it; over
    Explicit axes as the types of the arrays say. The op runs plainly where there is nothing
    to split over, or where the axes are already Manual (inside another shard_map).

    Args:
      op: a function of arrays; its result has the batch leading.
      batched: arrays with the batch leading.
      replicated: arrays that every example uses.

    Source: tests/ops/test_partition.py, which reads the compiled programs of eight devices.
    """
    axes = next((a for a in map(_explicit_axes, batched) if a), ())
    if axes:
        batched = tuple(jax.sharding.reshard(a, PartitionSpec(axes)) for a in batched)
        replicated = tuple(jax.sharding.reshard(a, PartitionSpec()) for a in replicated)
    axes = axes or _auto_axes(batched[0].shape[0])
    if not axes:
        return op(*batched, *replicated)

    def on_device(*arrays: Array) -> Array:
        own, shared = arrays[: len(batched)], arrays[len(batched) :]
        # Outside the ops' own gradients: the transpose of this cast is the all-reduce.
        return op(*own, *(jax.lax.pcast(a, axes, to="varying") for a in shared))

    split, whole = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        on_device,
        in_specs=(split,) * len(batched) + (whole,) * len(replicated),
        out_specs=split,
        axis_names=set(axes),
    )(*batched, *replicated)


def _explicit_axes(x: Array) -> tuple[str, ...]:
    """The Explicit mesh axes that the type of x says its batch is split over."""
    spec = jax.typeof(x).sharding.spec
    first = spec[0] if spec else None
    return () if first is None else first if isinstance(first, tuple) else (first,)


def _auto_axes(batch: Any) -> tuple[str, ...]:
    """The Auto mesh axes to split this batch over, as many as divide it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not isinstance(batch, int):  # an exported program's batch has no size
        return ()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    axes = tuple(a for a in BATCH_AXES if types.get(a) == AxisType.Auto)
    for count in range(len(axes), 0, -1):
        size = math.prod(mesh.shape[a] for a in axes[:count])
        if size > 1 and batch % size == 0:
            return axes[:count]
    return ()


def vary_alike(*arrays: Array) -> tuple[Array, ...]:
    """Returns the arrays, each varying over the devices that any of them varies over.

    For gradients written by hand, which have to have the type of their argument: inside a
    shard_map, where x varies and the experts do not, the gradient of the experts would vary too.
    The product with the others' ones makes all vary, and its transpose adds up the devices'
    gradients. XLA drops it.
    """
    together = []
    for a in arrays:
        for other in arrays:
            if other is not a:
                a = a * jnp.ones_like(other, shape=(1,) * a.ndim, dtype=a.dtype)
        together.append(a)
    return tuple(together)
