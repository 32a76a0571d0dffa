"""Where the arrays of a training state lie on a mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from condconv_jax.nn.compress import EXPERT_NDIM
from condconv_jax.ops.partition import EXPERT_AXIS


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns a tree like `state` of shardings: experts split over "expert", all else whole.

    Experts are a module's `kernel` with an axis of experts and the `bias` (e, f) beside it, in
    parameters and in whatever has their structure: the optimiser's state, moving averages,
    gradients. Those whose number the axis does not divide stay whole, as the ops expect.

    Args:
      state: a tree of arrays or of their shapes.
      mesh: without the axis "expert" everything is whole.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    parts = mesh.shape.get(EXPERT_AXIS, 1)
    if parts == 1:
        return jax.tree.map(lambda _: whole, state)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    modules = {
        path[:-1]
        for path, leaf in leaves
        if _name(path) == "kernel" and leaf.ndim in EXPERT_NDIM and leaf.shape[0] % parts == 0
    }
    split = NamedSharding(mesh, PartitionSpec(EXPERT_AXIS))

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        # A bias without experts, as ODConv's, is of the output channels.
        has_experts = _name(path) == "kernel" or (_name(path) == "bias" and leaf.ndim == 2)
        return split if path[:-1] in modules and has_experts else whole

    return jax.tree_util.tree_map_with_path(place, state)


def _name(path: tuple[Any, ...]) -> str:
    return str(getattr(path[-1], "key", "")) if path else ""
