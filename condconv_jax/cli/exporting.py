"""A trained network as a program to be exported, and what the network itself computes."""

import collections
import dataclasses
import functools
from importlib.metadata import version
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax import analysis, models
from condconv_jax.cli.network import BoundNetwork
from condconv_jax.cli.trained import Predictor
from condconv_jax.data import normalize
from condconv_jax.interop.export import Program, Reference

VERSION = 1  # of the metadata

OUTPUTS = {
    "classification": {"logits": "(b, classes) float32, before softmax"},
    "detection": {
        "boxes": "(b, anchors, 4) float32, (top, left, bottom, right), shares of height and width",
        "scores": "(b, anchors, classes) float32, 0 to 1, before non-maximum suppression",
    },
}


class _ReachedError(Exception):
    """The layer that was to be run last has been."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


def network_outputs(network: BoundNetwork, images: Any) -> dict[str, Any]:
    """Returns what OUTPUTS says of pictures uint8 (b, s, s, 3)."""
    if network.kind == "classification":
        return {"logits": network.task.predict(network.params, network.model_state, images)}
    boxes, scores = network.task.score(network.params, network.model_state, images)
    return {"boxes": boxes, "scores": scores}


def layer_outputs(network: BoundNetwork, images: Any) -> "collections.OrderedDict[str, Any]":
    """Returns the output of each layer with products, in the order of the computation.

    An OrderedDict, because JAX sorts the keys of any other.
    """
    model = network.task.model
    names = [cost.name for cost in analysis.layer_costs(model, network.task.image_size)]
    _, captured = model.apply(
        {"params": network.params, **network.model_state},
        normalize(images, network.task.mean, network.task.std),
        train=False,
        capture_intermediates=lambda module, _: "/".join(module.path) in names,
        mutable=["intermediates"],
    )
    found = collections.OrderedDict()
    for name in names:
        tree = captured["intermediates"]
        for part in name.split("/"):
            tree = tree.get(part, {})
        for value in tree.get("__call__", ()):
            if isinstance(value, jax.Array):
                found[name] = value
    return found


def output_of(network: BoundNetwork, images: Any, layer: str) -> Any:
    """Returns the output of one of `layer_outputs`; what comes after it is not even traced."""

    def stop(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if "/".join(context.module.path) == layer and context.method_name == "__call__":
            raise _ReachedError(output)
        return output

    try:
        with nn.intercept_methods(stop):
            network_outputs(network, images)
    except _ReachedError as reached:
        return reached.output
    raise ValueError(f"output_of: the network has no layer {layer!r}")


def make_program(network: BoundNetwork, metadata: dict[str, Any]) -> Program:
    """Returns a network as functions of pictures alone: its weights are constants of them."""
    return Program(
        functools.partial(network_outputs, network),
        functools.partial(layer_outputs, network),
        functools.partial(output_of, network),
        network.task.image_size,
        metadata,
    )


def make_reference(network: BoundNetwork, layers_of: BoundNetwork | None = None) -> Reference:
    """Returns what a network computes, and how exact that is.

    Args:
      network: to compare with.
      layers_of: the same with the layers of the program that is compared, by which one that differs
        is named: a folded batch norm changes what is before it. None where they are the network's.
    """

    def run(method: Any, network: BoundNetwork = network) -> Any:
        compiled = jax.jit(functools.partial(method, network))
        return lambda images: jax.device_get(compiled(images))

    def rounding() -> float:
        from condconv_jax.interop.export.verify import BATCHES, make_pictures

        pictures = make_pictures(max(BATCHES), network.task.image_size)
        single = run(network_outputs)(pictures)
        exact = _in_float64(network, pictures)
        return max(
            float(np.abs(single[name] - exact[name]).max() / np.abs(exact[name]).max())
            for name in single
        )

    return Reference(run(network_outputs), run(layer_outputs, layers_of or network), rounding)


def _in_float64(network: BoundNetwork, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """The same outputs from the same weights, but computed in float64."""

    def widen(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    with jax.enable_x64(True):
        model = network.task.model.clone(dtype=jnp.float64, method="portable")
        wide = dataclasses.replace(
            network.with_model(model),
            params=jax.tree.map(widen, network.params),
            model_state=jax.tree.map(widen, network.model_state),
        )
        return jax.device_get(jax.jit(functools.partial(network_outputs, wide))(pictures))


def make_metadata(predictor: Predictor, network: BoundNetwork, experts: str) -> dict[str, Any]:
    """Returns what is to be known of an exported network, as JSON can hold it."""
    config, task, facts = predictor.config, network.task, predictor.workdir.read_facts()
    data = {key: value for key, value in config["data"].items() if key not in ("path", "threads")}
    metadata: dict[str, Any] = {
        "format_version": VERSION,
        "written_by": f"condconv_jax {version('condconv_jax')}",
        "task": network.kind,
        "network": config["model"]["name"],
        "conditional": models.describe(config["model"]),
        "experts": experts if experts != "float32" else facts.get("experts", experts),
        "step": int(predictor.state.step),
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["b", task.image_size, task.image_size, 3],
            "channels": "RGB",
            # Inside the program; said for those who take it apart.
            "normalization": {
                "inside": True,
                "formula": "(images / 255 - mean) / std",
                "mean": list(task.mean),
                "std": list(task.std),
            },
        },
        "outputs": OUTPUTS[network.kind],
        "class_names": list(predictor.class_names),
        # How evaluation makes a picture of the input's size, as keys of a config.
        "config": {"task": config["task"], "data": data},
    }
    if network.kind == "detection":
        metadata["suppression"] = task.suppression()
    return metadata
