"""Weights of timm's networks as our variables, and ours in timm's layout.

timm (huggingface/pytorch-image-models) names them, at 1.0.31,

    conv_stem, bn1                                     layer_1, layer_1_bn
    blocks.S.J.{conv_pw, bn1, conv_dw, bn2,            layer_{n}/{expand, expand_bn, depthwise,
                conv_pwl, bn3}                                    depthwise_bn, project, project_bn}
    blocks.S.J.{conv_dw, bn1, conv_pw, bn2}            the same without expansion, and MobileNetV1's
    blocks.S.J.se.{conv_reduce, conv_expand}           layer_{n}/se/{reduce, expand}
    blocks.S.J.routing_fn                              router_{n}
    conv_head, bn2, classifier                         the last two layers

and ResNet's conv1, bn1, layerS.J.{conv1..3, bn1..3, downsample.0, downsample.1}, fc. Kernels are
(f, c/g, kh, kw) there, those of experts (e, f * c/g * kh * kw) (timm/layers/cond_conv2d.py).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from condconv_jax.interop.misfit import refuse_misfits
from condconv_jax.interop.state_dicts import read_state_dict
from condconv_jax.interop.timm_networks import check_same, find, make
from condconv_jax.models.network import Network
from condconv_jax.models.resnet import ResNet50
from condconv_jax.nn import variable_shapes
from condconv_jax.nn.compress import SCALE

# Counts steps for averages that timm does not take; every batch norm there has one.
COUNTER = "num_batches_tracked"

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_LAYER = {"kernel": "weight", "bias": "bias"}
_EXPANDING = {
    "expand": "conv_pw",
    "expand_bn": "bn1",
    "depthwise": "conv_dw",
    "depthwise_bn": "bn2",
    "project": "conv_pwl",
    "project_bn": "bn3",
}
_SEPARABLE = {
    "depthwise": "conv_dw",
    "depthwise_bn": "bn1",
    "project": "conv_pw",
    "project_bn": "bn2",
    "pointwise": "conv_pw",
    "pointwise_bn": "bn2",
}
_SQUEEZE = {"se/reduce": "se.conv_reduce", "se/expand": "se.conv_expand"}
_BOTTLENECK = {
    "reduce": "conv1",
    "reduce_bn": "bn1",
    "spatial": "conv2",
    "spatial_bn": "bn2",
    "expand": "conv3",
    "expand_bn": "bn3",
    "projection": "downsample.0",
    "projection_bn": "downsample.1",
}


def from_timm(
    state: Mapping[str, np.ndarray], model: Network, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the weights of a timm network as variables of ours.

    Args:
      state: arrays by timm's keys.
      model: the network, as `timm_networks.make` makes it.
      variables: {"params": ..., "batch_stats": ...} of `jax.ShapeDtypeStruct`, as
        `jax.eval_shape` of its `init` returns them.

    Returns:
      NumPy arrays in the structure, shapes and dtypes of `variables`.

    Raises:
      ValueError: if any weight is missing, extra or of another shape; names every one of them.
    """
    wanted = traverse_util.flatten_dict(dict(variables), sep="/")
    keys = {path: _timm_key(path, model, wanted) for path in wanted}
    known = set(keys.values())
    problems = [
        f"{key}: extra, {array.shape}"
        for key, array in state.items()
        if key not in known and not key.endswith(COUNTER)
    ]
    converted = {}
    for path, leaf in wanted.items():
        key, shape = keys[path], _timm_shape(path, leaf.shape)
        if key not in state:
            problems.append(f"{key}: missing, wanted {shape} for {path}")
        elif state[key].shape != shape or not jnp.issubdtype(state[key].dtype, jnp.floating):
            problems.append(
                f"{key}: {state[key].dtype.name} {state[key].shape}, wanted {shape} for {path}"
            )
        else:
            converted[path] = _from_layout(path, state[key], leaf.shape).astype(leaf.dtype)
    heading = "from_timm: the file does not fit the network"
    refuse_misfits(heading, problems, converted, "name the network that it is of")
    return traverse_util.unflatten_dict(converted, sep="/")


def to_timm(name: str, model: Network, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns our weights by timm's keys and in its shapes, to be loaded into its network.

    Args:
      name: timm's network, one of `timm_networks.names()`.
      model: ours, whose options have to be those of timm's network.
      variables: its {"params": ..., "batch_stats": ...}, arrays.

    Raises:
      ValueError: for an unknown name, if ours is another network (names every option), or if its
        experts are int8.
    """
    check_same(name, model)
    state = {}
    # What else a network's state may hold, such as the steps of annealing, is of training.
    weights = {name: variables[name] for name in ("params", "batch_stats")}
    flat = traverse_util.flatten_dict(weights, sep="/")
    if any(path.endswith(f"/{SCALE}") for path in flat):
        raise ValueError("to_timm: the experts are int8, which timm does not have; pass others")
    for path, value in flat.items():
        key = _timm_key(path, model, flat)
        state[key] = _to_layout(path, np.asarray(value))
        if path.endswith("_bn/var"):
            state[f"{key.rpartition('.')[0]}.{COUNTER}"] = np.zeros((), np.int64)
    return state


def read_timm(path: str | Path, name: str) -> tuple[Network, dict[str, Any]]:
    """Returns our network and its variables from a state dict of timm's.

    Args:
      path: of a .safetensors file, or of a PyTorch file that holds only weights.
      name: timm's name of the network, one of `timm_networks.names()`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for an unknown name, a damaged file or one of another network.
      ImportError: if the package that reads it is not installed.
    """
    network = find(name)
    state = read_state_dict(path)
    bias = next((state[key] for key in ("classifier.bias", "fc.bias") if key in state), None)
    if bias is None or bias.ndim != 1:
        raise ValueError(
            f"read_timm: {path} has no vector classifier.bias or fc.bias, by which classes are "
            f"counted, among {', '.join(list(state)[:5])}, ...; pass the state dict of a whole "
            "network"
        )
    model = make(name, num_classes=len(bias))
    variables = variable_shapes(model, network.image_size)
    return model, from_timm(state, model, variables)


def _timm_key(path: str, model: Network, paths: Any) -> str:
    """Timm's key of one of our variables, "params/..." or "batch_stats/..."."""
    module, _, leaf = path.partition("/")[2].rpartition("/")
    layer = re.match(r"(?:layer|router)_(\d+)", module)
    number = int(layer[1]) if layer else 0
    names = _NORM if module.endswith("_bn") else _LAYER
    return f"{_timm_module(module, number, model, paths)}.{names[leaf]}"


def _timm_module(module: str, number: int, model: Network, paths: Any) -> str:
    resnet = isinstance(model, ResNet50)
    if module == "classifier":
        return "fc" if resnet else "classifier"
    if number == 1:
        norm = module.endswith("_bn")
        return "bn1" if norm else ("conv1" if resnet else "conv_stem")
    for stage, group in enumerate(model.layout().groups):
        if number in group:
            block = f"{stage}.{group.index(number)}"
            role = module.partition("/")[2]
            if resnet:
                return f"layer{stage + 1}.{block.partition('.')[2]}.{_BOTTLENECK[role]}"
            if not role:
                return f"blocks.{block}.routing_fn"
            expands = f"params/layer_{number}/expand/kernel" in paths
            roles = (_EXPANDING if expands else _SEPARABLE) | _SQUEEZE
            return f"blocks.{block}.{roles[role]}"
    return "bn2" if module.endswith("_bn") else "conv_head"


def _timm_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one of our arrays in timm."""
    if not path.endswith("/kernel"):
        return shape
    *experts, kh, kw, c, f = shape if len(shape) > 2 else (1, 1, *shape)
    if experts:
        return experts[0], f * c * kh * kw
    return (f, c, kh, kw) if len(shape) == 4 or "/se/" in path else (f, c)


def _to_layout(path: str, array: np.ndarray) -> np.ndarray:
    """An array of ours as timm has it."""
    shape = _timm_shape(path, array.shape)
    if path.endswith("/kernel"):
        # (kh, kw, c, f), after experts where there are any, becomes (f, c, kh, kw).
        array = np.moveaxis(array, (-1, -2), (-4, -3)) if array.ndim > 2 else array.T
    return np.ascontiguousarray(array.reshape(shape))


def _from_layout(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of timm's, in our axes and of our shape."""
    if not path.endswith("/kernel"):
        return array
    if len(shape) == 2:
        return array.reshape(shape[::-1]).T
    *experts, kh, kw, c, f = shape
    return np.moveaxis(array.reshape(*experts, f, c, kh, kw), (-4, -3), (-1, -2))
