"""Where the arrays of a training state lie on a mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from condconv_jax.ops.partition import EXPERT_AXIS

# Axes of a kernel with experts: (e, kh, kw, c/g, f) of a convolution, (e, c, f) of a matrix.
WITH_EXPERTS = (5, 3)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns a tree like `state` of shardings: experts split over "expert", all else whole.

    Experts are a module's `kernel` with an axis of experts and the `bias` beside it, in
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
        if _name(path) == "kernel" and leaf.ndim in WITH_EXPERTS and leaf.shape[0] % parts == 0
    }
    split = NamedSharding(mesh, PartitionSpec(EXPERT_AXIS))

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        del leaf
        return split if path[:-1] in modules and _name(path) in ("kernel", "bias") else whole

    return jax.tree_util.tree_map_with_path(place, state)


def _name(path: tuple[Any, ...]) -> str:
    return str(getattr(path[-1], "key", "")) if path else ""
