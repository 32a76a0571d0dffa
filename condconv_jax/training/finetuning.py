"""Starting from the weights of another run."""

from typing import Any

import jax
import numpy as np

from condconv_jax.nn.compress import SCALE


def transfer(params: Any, source: Any, *, renew: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """Returns `params` with the values of `source`, and the names of what kept its own.

    The modules in `renew` keep their new values: another set of classes needs another classifier.
    Its router is a module of its own, whose shape does not depend on the classes, and is taken
    over.

    Args:
      params: the new network's parameters (or model state), nested dicts of arrays or of their
        shapes.
      source: another network's, of numpy or JAX arrays.
      renew: paths of modules, or of single parameters, that start anew, such as "classifier" or
        "exit_1/linear".

    Returns:
      The merged tree, and the names "module/parameter" that kept their own values.

    Raises:
      ValueError: listing every other parameter that is missing, extra or of another shape.
    """
    wanted, given = _by_name(params), _by_name(source)
    wrong = []
    for name, leaf in wanted.items():
        if _within(name, renew):
            continue
        if name not in given:
            wrong.append(f"{name} is missing")
        elif given[name].shape != leaf.shape:
            wrong.append(f"{name} is {given[name].shape}, the network wants {leaf.shape}")
    wrong += [
        f"{name} is not in the network"
        for name in given
        if name not in wanted and not _within(name, renew)
    ]
    if wrong:
        # What `compress_experts` adds; no option of a network gives it.
        rounded = any(name.endswith(f"/{SCALE}") for name in given.keys() - wanted.keys())
        remedy = (
            "its experts are compressed: take the run that was compressed"
            if rounded
            else "make the model's options those of the checkpoint"
        )
        raise ValueError(
            f"transfer: the checkpoint is of another network: {'; '.join(wrong)}; {remedy}"
        )
    kept = [name for name in wanted if _within(name, renew)]

    def merged(path: tuple[Any, ...], leaf: Any) -> Any:
        name = _name(path)
        return leaf if name in kept else np.asarray(given[name], leaf.dtype)

    return jax.tree_util.tree_map_with_path(merged, params), kept


def outside(modules: tuple[str, ...], *trees: Any, within: int = 0) -> tuple[str, ...]:
    """Returns the modules of the trees that are not among `modules`, to be renewed by `transfer`.

    Args:
      modules: names of a network's own modules.
      *trees: parameters or model states.
      within: levels of a tree above those modules; 1 of a model state, {"batch_stats": ...}.
    """
    depth = within + 1
    found = {"/".join(name.split("/")[:depth]) for tree in trees for name in _by_name(tree)}
    return tuple(sorted(name for name in found if name.split("/")[-1] not in modules))


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}/") for module in modules)


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(key.key) for key in path)


def _by_name(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
