"""One pass of a network over its evaluation set: scores, and each layer's routing weights."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.extend import core
from jax.sharding import Mesh

from condconv_jax.runtime import Evaluation, Sum, add, fetch, put_batch


class RoutedTask(Protocol):
    """What a task needs to be analysed."""

    @property
    def image_size(self) -> int:
        """Pixels, of square images."""

    def evaluate(self, params: Any, model_state: Any, batch: Mapping[str, Any]) -> Evaluation:
        """Returns the sums of each metric over a batch."""

    def routing(self, params: Any, model_state: Any, images: Any) -> dict[str, Any]:
        """Returns the routing weights (b, e) by module, nested."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a pass found.

    Attributes:
      scores: sum and count of each metric over the set.
      labels: class of each image (n,).
      routing: layer -> its routing weights (n, e) float32, in the order of the forward pass;
        empty for a static network.
      modules: layer -> the modules that mix by these weights.
      places: of each image among the rows of all batches (n,): its index in the source, if the
        batches are those of `eval_batches`.
    """

    scores: dict[str, Sum]
    labels: np.ndarray
    routing: dict[str, np.ndarray]
    modules: dict[str, list[str]]
    places: np.ndarray


def collect(
    task: RoutedTask,
    params: Any,
    model_state: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mesh: Mesh,
    module_order: Sequence[str],
) -> Collected:
    """Returns scores and routing weights over a whole set, each image counted once.

    Runs in one process; its devices share each batch.

    Args:
      task: whose network is analysed.
      params: its parameters.
      model_state: its batch norm statistics.
      batches: {"image" (b, h, w, 3), "label" (b,), "mask" (b,)}, padded rows having mask 0.
      mesh: devices.
      module_order: modules in the order of the forward pass, as `layer_costs` names them.

    Raises:
      ValueError: if there are no images.
    """
    channels = 3  # of every data source; grey images come as three equal ones
    size = task.image_size
    example = jax.ShapeDtypeStruct((1, size, size, channels), np.uint8)
    layers = routing_layers(task.routing, (params, model_state, example), module_order)

    @jax.jit
    def step(params: Any, model_state: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        sown = by_module(task.routing(params, model_state, batch["image"]))
        weights = {layer: sown[modules[0]] for layer, modules in layers.items()}
        return task.evaluate(params, model_state, batch).sums, weights

    scores: dict[str, Sum] = {}
    labels, parts, kept = [], [], []
    with jax.set_mesh(mesh):
        for batch in batches:
            sums, weights = step(params, model_state, put_batch(batch, mesh))
            keep = np.asarray(batch["mask"]) > 0
            scores = add(scores, fetch(sums))
            labels.append(np.asarray(batch["label"])[keep])
            kept.append(keep)
            parts.append({k: np.asarray(v, np.float32)[keep] for k, v in weights.items()})
    if not sum(map(len, labels)):
        raise ValueError("collect: the evaluation set has no images; pass another split")
    routing = {layer: np.concatenate([part[layer] for part in parts]) for layer in layers}
    places = np.flatnonzero(np.concatenate(kept))
    return Collected(scores, np.concatenate(labels), routing, layers, places)


def by_module(sown: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sown routing weights by the path of the module, {"layer_7/depthwise": (b, e)}."""
    return {_module(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(dict(sown))}


def routing_layers(
    routing: Callable[..., Mapping[str, Any]],
    arguments: Sequence[Any],
    module_order: Sequence[str],
) -> dict[str, list[str]]:
    """Returns the layers that route, in the order of the forward pass, each with its modules.

    Modules that mix by the same routing weights are one layer: those whose weights the traced
    program computes alike from the same variables, as where each module keeps the largest of the
    weights that they share, not those whose values happen to agree. A layer is named after the
    module, what the paths of its modules have in common ("layer_7" for "layer_7/depthwise" and
    "layer_7/pointwise"), or else the first and the last block ("layer_7 to layer_8").

    Args:
      routing: as `RoutedTask.routing`.
      arguments: of `routing`; arrays or their shapes.
      module_order: as `collect`; modules that it lacks come last.
    """
    program, shapes = jax.make_jaxpr(routing, return_shape=True)(*arguments)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    position = {name: index for index, name in enumerate(module_order)}
    shared: dict[int, list[str]] = {}
    numbers = _numbered(program)
    for (path, _), number in zip(leaves, numbers, strict=True):
        shared.setdefault(number, []).append(_module(path))
    groups = [sorted(g, key=lambda m: position.get(m, len(position))) for g in shared.values()]
    groups.sort(key=lambda group: position.get(group[0], len(position)))
    return {layer_name(group): group for group in groups}


def _numbered(program: core.ClosedJaxpr) -> list[int]:
    """A number for each output of a program, the same for those that are computed alike."""
    known: dict[Any, int] = {}
    numbers: dict[core.Var, int] = {}

    def number(key: Any) -> int:
        return known.setdefault(key, len(known))

    def of(atom: Any) -> int:
        if isinstance(atom, core.Literal):
            return number((str(atom.aval), np.asarray(atom.val).tobytes()))
        return numbers[atom]

    for variable in program.jaxpr.invars:
        numbers[variable] = number(variable)
    for variable, value in zip(program.jaxpr.constvars, program.consts, strict=True):
        constant = np.asarray(value)
        numbers[variable] = number((str(variable.aval), constant.tobytes()))
    for eqn in program.jaxpr.eqns:
        # Inner programs are the same objects where JAX found them in its cache.
        params = tuple((k, id(v) if _is_inner(v) else repr(v)) for k, v in eqn.params.items())
        computed = (eqn.primitive.name, params, *map(of, eqn.invars))
        for index, variable in enumerate(eqn.outvars):
            numbers[variable] = number((*computed, index))
    return [of(atom) for atom in program.jaxpr.outvars]


def _is_inner(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr) or callable(value)


def layer_name(modules: Sequence[str]) -> str:
    """Returns one name for modules, given in order, that share their routing."""
    if len(modules) == 1:
        return modules[0]
    paths = [module.split("/") for module in modules]
    common = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return "/".join(common) or f"{paths[0][0]} to {paths[-1][0]}"


def _module(path: Sequence[Any]) -> str:
    return "/".join(str(key.key) for key in path[:-1])  # the last is the sown name
