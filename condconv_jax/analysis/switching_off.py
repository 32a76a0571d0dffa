"""What an expert is worth: the accuracy of the network without it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from condconv_jax.nn.compress import EXPERT_NDIM, SCALE
from condconv_jax.runtime import Evaluation, Sum, add, fetch, put_batch


class ScoredTask(Protocol):
    """What a task needs for its experts to be switched off."""

    def evaluate(self, params: Any, model_state: Any, batch: Mapping[str, Any]) -> Evaluation:
        """Returns the sums of each metric, top1 among them, over a batch."""


@dataclasses.dataclass(frozen=True)
class SwitchedOff:
    """Accuracies of a network without one expert of a layer.

    Attributes:
      layer: whose experts.
      images: number of evaluation images.
      top1: of the whole network, 0 to 1.
      without: top-1 without each expert (e,).
    """

    layer: str
    images: int
    top1: float
    without: Float[np.ndarray, " e"]

    @property
    def drops(self) -> Float[np.ndarray, " e"]:
        """What the network loses without each expert, top-1 from 0 to 1; below 0 it gains."""
        return self.top1 - self.without


def switch_off(params: Any, modules: Sequence[str], expert: int) -> Any:
    """Returns parameters of the network with one expert's routing weight held at 0.

    A layer's kernel is sum_e r[b, e] W[e], and its bias likewise, so W[e] = 0 is exactly
    r[b, e] = 0; shapes, and with them compiled programs, stay. Routing itself is not changed:
    other weights of a softmax do not grow in its place, and no other expert moves up among the
    largest k.

    Args:
      params: of a network, nested mappings; float experts.
      modules: all modules of the layer, as `Collected.modules` names them.
      expert: its number.

    Raises:
      ValueError: if a module has no experts that are mixed by weights, has quantised ones, or
        has too few.
    """
    for module in modules:
        params = _without(params, module.split("/"), module, expert)
    return params


def evaluate_without(
    task: ScoredTask,
    params: Any,
    model_state: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    layer: str,
    modules: Sequence[str],
    mesh: Mesh,
) -> SwitchedOff:
    """Returns the accuracy without each expert of a layer, by one compiled program.

    Costs e + 1 evaluations of the batches.

    Args:
      task: whose network it is.
      params: its parameters.
      model_state: its batch norm statistics.
      batches: as of `collect`; held in memory, so pass no more than are needed.
      layer: its name, for the result.
      modules: as `switch_off`.
      mesh: devices.

    Raises:
      ValueError: as `switch_off`; or if there are no images.
    """
    # Refused before anything is compiled.
    switch_off(params, modules, 0)
    experts = _at(params, modules[0].split("/"))["kernel"].shape[0]

    @jax.jit
    def step(params: Any, model_state: Any, batch: Mapping[str, Any]) -> Any:
        return task.evaluate(params, model_state, batch).sums

    with jax.set_mesh(mesh):
        held = [put_batch(batch, mesh) for batch in batches]

        def score(params: Any) -> Sum:
            sums = [fetch(step(params, model_state, batch)) for batch in held]
            return add(*sums)["top1"]

        if not held or not (whole := score(params)).count:
            raise ValueError("evaluate_without: there are no images; pass another split")
        without = [score(switch_off(params, modules, e)).total for e in range(experts)]
    images = int(whole.count)
    return SwitchedOff(
        layer, images, float(whole.total) / images, np.array(without, float) / images
    )


def evenly_spaced_batches(
    picture: Callable[[int], np.ndarray], labels: np.ndarray, *, batch_size: int, limit: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of up to `limit` images, evenly spaced, as of `collect`.

    Sets are often sorted by class, so the first images would be of few of them.

    Args:
      picture: row -> its image, uint8 (s, s, 3), all of one size.
      labels: class of each image (n,).
      batch_size: images of a batch; the last is filled by repeating its first, with mask 0.
      limit: images at most.
    """
    count = min(limit, len(labels))
    rows = np.arange(count) * len(labels) // count
    for start in range(0, count, batch_size):
        own = rows[start : start + batch_size]
        missing = batch_size - len(own)
        images = np.stack([picture(row) for row in own.tolist()])
        yield {
            "image": np.concatenate([images, np.repeat(images[:1], missing, axis=0)]),
            "label": np.pad(labels[own], (0, missing)).astype(np.int32),
            "mask": np.pad(np.ones(len(own), np.float32), (0, missing)),
        }


def _at(tree: Any, names: Sequence[str]) -> Any:
    """The subtree by its path, None where there is none."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _without(tree: Any, names: Sequence[str], module: str, expert: int) -> Any:
    """A copy of the tree in which the module that `names` leads to lacks an expert."""
    if names:
        child = tree.get(names[0]) if isinstance(tree, Mapping) else None
        if child is None:
            raise ValueError(f"switch_off: params have no module {module}; pass those of the layer")
        return {**tree, names[0]: _without(child, names[1:], module, expert)}
    kernel = tree.get("kernel") if isinstance(tree, Mapping) else None
    if kernel is None or kernel.ndim not in EXPERT_NDIM:
        raise ValueError(
            f"switch_off: {module} has no experts that its routing weights mix; pass a layer of "
            "CondConv, dynamic convolution or ODConv"
        )
    if SCALE in tree:
        raise ValueError(f"switch_off: the experts of {module} are quantised; pass the originals")
    if not 0 <= expert < kernel.shape[0]:
        raise ValueError(
            f"switch_off: {module} has {kernel.shape[0]} experts; pass 0 to {kernel.shape[0] - 1}, "
            f"not {expert}"
        )
    found = {**tree, "kernel": jnp.asarray(kernel).at[expert].set(0)}
    # ODConv has one bias (f,) for all experts, where others have (e, f).
    if "bias" in tree and tree["bias"].ndim == 2:
        found["bias"] = jnp.asarray(tree["bias"]).at[expert].set(0)
    return found
