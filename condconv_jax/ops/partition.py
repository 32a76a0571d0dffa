"""Running an op on a mesh: every device its own examples, nothing gathered."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

DATA_AXIS = "data"
# Experts are split over the devices along this one, as well as the batch.
EXPERT_AXIS = "expert"
# The mesh axes that the batch is split over, in this order.
BATCH_AXES = (DATA_AXIS, EXPERT_AXIS)

# An array, or a tree of them, with the batch leading.
Batched = TypeVar("Batched")


def over_batch(
    op: Callable[..., Batched],
    batched: tuple[Array, ...],
    replicated: tuple[Array, ...],
    experts: tuple[Array, ...] = (),
    *,
    gather: bool = True,
) -> Batched:
    """Returns `op(*batched, *replicated, *experts)`, each device computing its own examples.

    Per-example kernels make the batch a loop or a group count, and XLA's partitioner answers
    either by gathering every activation on every device. Inside `jax.shard_map` there is nothing
    for it to decide. The gradient of each replicated array is one all-reduce.

    On a mesh with Auto axes the batch is split over as many of `BATCH_AXES` as divide it; over
    Explicit axes as the types of the arrays say. The op runs plainly where there is nothing
    to split over, or where the axes are already Manual (inside another shard_map).

    Over the axis "expert", where it divides them, each device keeps a part of the experts only. All
    of them meet for the time of the op: one all-gather among the devices that share a set, and for
    the gradient a reduce-scatter among them and an all-reduce of the part over "data".

    Args:
      op: a function of arrays; its result, or every array of it, has the batch leading.
      batched: arrays with the batch leading.
      replicated: arrays that every example uses.
      experts: arrays with the experts leading.
      gather: whether the op gets all experts, or this device's part of them, for
        `mix_partially`.

    Source: tests/ops/test_partition.py, which reads the compiled programs of eight devices.
    """
    axes = _batch_axes(batched)
    shares = [EXPERT_AXIS if _parts(axes, a.shape[0]) > 1 else None for a in experts]
    if _is_explicit(axes):
        batched = tuple(jax.sharding.reshard(a, PartitionSpec(axes)) for a in batched)
        replicated = tuple(jax.sharding.reshard(a, PartitionSpec()) for a in replicated)
        experts = tuple(
            jax.sharding.reshard(a, PartitionSpec(share))
            for a, share in zip(experts, shares, strict=True)
        )
    if not axes:
        return op(*batched, *replicated, *experts)

    def on_device(
        own: tuple[Array, ...], shared: tuple[Array, ...], parts: tuple[Array, ...]
    ) -> Batched:
        # Outside the ops' own gradients: the transpose of this cast is the all-reduce.
        shared = tuple(jax.lax.pcast(a, axes, to="varying") for a in shared)
        whole = []
        for part, share in zip(parts, shares, strict=True):
            others = tuple(axis for axis in axes if axis != share)
            part = jax.lax.pcast(part, others, to="varying") if others else part
            if share and gather:
                part = jax.lax.all_gather(part, share, axis=0, tiled=True)
            whole.append(part)
        return op(*own, *shared, *whole)

    split = PartitionSpec(axes)
    return jax.shard_map(
        on_device,
        in_specs=(split, PartitionSpec(), tuple(map(PartitionSpec, shares))),
        out_specs=split,
        axis_names=set(axes),
    )(batched, replicated, experts)


def mixes_apart(num_experts: int, *batched: Array) -> bool:
    """Returns whether devices that share a set of experts had better each mix their part of them.

    They then send each other one kernel for each of their examples instead of all experts, which
    is less where their examples are fewer than the experts.

    Args:
      num_experts: e.
      batched: arrays with the batch leading.
    """
    axes = _batch_axes(batched)
    if _parts(axes, num_experts) == 1:
        return False
    shape = jax.sharding.get_abstract_mesh().shape
    sets = math.prod(shape[axis] for axis in axes if axis != EXPERT_AXIS)
    return batched[0].shape[0] // sets < num_experts


def mix_partially(
    mix: Callable[[Array, Array], Array], experts: Array, routing: Float[Array, "b e"]
) -> Array:
    """Returns the kernels of this device's examples, mixed where the experts are.

    Every device mixes its part of the experts for the examples of all devices that share a set, and
    the sums are exchanged: b * parts kernels are sent instead of e.

    Args:
      mix: (e / parts, ...), (n, e / parts) -> (n, ...), linear in its second argument.
      experts: this device's part, in `over_batch` without `gather`.
      routing: weights of this device's examples for all experts.
    """
    everyone = jax.lax.all_gather(routing, EXPERT_AXIS, axis=0, tiled=True)
    first = jax.lax.axis_index(EXPERT_AXIS) * experts.shape[0]
    own = jax.lax.dynamic_slice_in_dim(everyone, first, experts.shape[0], axis=1)
    mixed = mix(experts, own)
    return jax.lax.psum_scatter(mixed, EXPERT_AXIS, scatter_dimension=0, tiled=True)


def _parts(axes: tuple[str, ...], num_experts: int) -> int:
    if EXPERT_AXIS not in axes:
        return 1
    size = jax.sharding.get_abstract_mesh().shape[EXPERT_AXIS]
    return size if num_experts % size == 0 else 1


def _batch_axes(batched: tuple[Array, ...]) -> tuple[str, ...]:
    """The mesh axes to split a batch over."""
    explicit = next((a for a in map(_explicit_axes, batched) if a), ())
    return explicit or _auto_axes(batched[0].shape[0])


def _is_explicit(axes: tuple[str, ...]) -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return any(types[axis] == AxisType.Explicit for axis in axes)


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
