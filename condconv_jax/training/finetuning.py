"""Starting from the weights of another run."""

from typing import Any

import jax
import numpy as np


def transfer(
    params: Any, source: Any, *, replace: tuple[str, ...] = ("classifier",)
) -> tuple[Any, list[str]]:
    """Returns `params` with the values of `source` wherever it has them, and what was left.

    A parameter under one of the `replace` modules keeps its own, new value where the source's has
    another shape: another number of classes needs another classifier. Its router, whose shape
    does not depend on the classes, is taken over.

    Args:
      params: the new network's parameters, nested dicts.
      source: another network's parameters, or model state, of numpy or JAX arrays.
      replace: names of top-level modules that may differ.

    Returns:
      The merged tree, and the names "module/parameter" that kept their own values.

    Raises:
      ValueError: listing every other parameter that is missing, extra or of another shape.
    """
    wanted, given = _by_name(params), _by_name(source)
    wrong, kept = [], []
    for name, leaf in wanted.items():
        found = given.get(name)
        if found is not None and found.shape == leaf.shape:
            continue
        if name.split("/")[0] in replace:
            kept.append(name)
        elif found is None:
            wrong.append(f"{name} is missing")
        else:
            wrong.append(f"{name} is {found.shape}, the network wants {leaf.shape}")
    wrong += [
        f"{name} is not in the network"
        for name in given
        if name not in wanted and name.split("/")[0] not in replace
    ]
    if wrong:
        raise ValueError(
            "transfer: the checkpoint is of another network: " + "; ".join(wrong) + "; make the "
            "model's options those of the checkpoint"
        )

    def merged(path: tuple[Any, ...], leaf: Any) -> Any:
        name = _name(path)
        return leaf if name in kept else np.asarray(given[name], leaf.dtype)

    return jax.tree_util.tree_map_with_path(merged, params), kept


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(key.key) for key in path)


def _by_name(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
