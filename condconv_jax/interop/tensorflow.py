"""The official EfficientNet and EfficientNet-CondConv checkpoints, as our variables.

Official code: tensorflow/tpu at 7dc921f, models/official/efficientnet. Variables are there named

    SCOPE/stem/conv2d/kernel                                     layer_1
    SCOPE/blocks_K/dense/{kernel,bias}                           router_{K+2}
    SCOPE/blocks_K/conv2d[_1]/kernel                             layer_{K+2}/{expand,project}
    SCOPE/blocks_K/depthwise_conv2d/depthwise_kernel             layer_{K+2}/depthwise
    SCOPE/blocks_K/se/conv2d[_1]/{kernel,bias}                   layer_{K+2}/se/{reduce,expand}
    SCOPE/head/{conv2d/kernel,dense/{kernel,bias}}               layer_{N+2}, classifier
    .../tpu_batch_normalization[_N]/{gamma,beta,moving_mean,moving_variance}

and in CondConv blocks, whose layers are Keras',

    SCOPE/model/blocks_K/cond_conv2d_I/condconv_kernel           (e, kh * kw * c * f)
    SCOPE/model/blocks_K/depthwise_cond_conv2d_I/depthwise_condconv_kernel

(efficientnet_model.py:205-295 and 635-703; condconv/condconv_layers.py:176 and 393). Numbers count
the layers of a kind in the order of their calls: within the block or, for Keras' layers, over the
network, and then with gaps. What a number means is therefore its rank among those of its block.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from condconv_jax.interop.misfit import refuse_misfits

_EMA = "/ExponentialMovingAverage"
# Slots of the optimisers that the official code can be told to use (utils.py:83).
_TRAINING = re.compile(r"(^|/)global_step$|/(RMSProp|Momentum|LARSOptimizer)(_\d+)?$")
_NAME = re.compile(
    r"(?:.*/)?(stem|head|blocks_\d+)/((?:se/)?[a-z][a-z0-9_]*?)(?:_(\d+))?/([a-z_]+)"
)
_BATCH_NORM = "tpu_batch_normalization"
_DENSE = {"kernel": "kernel", "bias": "bias"}
_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
# Every official layer: its kind, and its variables by the names of the kind's.
_LAYERS = {
    "conv2d": ("conv2d", {"kernel": "kernel"}),
    "cond_conv2d": ("conv2d", {"condconv_kernel": "kernel"}),
    "depthwise_conv2d": ("depthwise_conv2d", {"depthwise_kernel": "kernel"}),
    "depthwise_cond_conv2d": ("depthwise_conv2d", {"depthwise_condconv_kernel": "kernel"}),
    "se/conv2d": ("se/conv2d", _DENSE),
    "dense": ("dense", _DENSE),
    _BATCH_NORM: (_BATCH_NORM, {leaf: leaf for leaf in _NORM.values()}),
}
# Our layers of a block, and the official kind and rank in a block that expands.
_ROLES = {
    "expand": ("conv2d", 0),
    "project": ("conv2d", 1),
    "depthwise": ("depthwise_conv2d", 0),
    "se/reduce": ("se/conv2d", 0),
    "se/expand": ("se/conv2d", 1),
    "expand_bn": (_BATCH_NORM, 0),
    "depthwise_bn": (_BATCH_NORM, 1),
    "project_bn": (_BATCH_NORM, 2),
}


class _Place(NamedTuple):
    """A variable of the official network: of the rank-th layer of a kind in a block."""

    block: str
    layer: str
    rank: int
    leaf: str

    def __str__(self) -> str:
        number = f"_{self.rank}" if self.rank else ""
        return f"{self.block}/{self.layer}{number}/{self.leaf}"


def from_tensorflow(
    tensors: Mapping[str, np.ndarray], variables: Mapping[str, Any], *, ema: bool = True
) -> dict[str, Any]:
    """Returns the weights of an official checkpoint as variables of our EfficientNet.

    The scope's name is of no account; optimiser slots and the global step are left out.

    Args:
      tensors: by name, as `read_tensors` returns them.
      variables: {"params": ..., "batch_stats": ...} of `jax.ShapeDtypeStruct`, as
        `jax.eval_shape` of the network's `init` returns them.
      ema: take the moving averages of the weights and of the batch-norm averages, which is what
        the published accuracies are of, rather than their last values. A batch-norm average
        without one is taken as it is.

    Returns:
      NumPy arrays in the structure, shapes and dtypes of `variables`; they may share memory with
      `tensors`.

    Raises:
      ValueError: if any weight is missing, extra or of another shape; names every one of them.
        Or if `ema` and the checkpoint has no moving averages.
    """
    official, problems = _choose(tensors, ema)
    wanted = traverse_util.flatten_dict(_plain(variables), sep="/")
    places = _our_places(wanted)
    found, extra = _official_places(official)
    known = set(places.values())
    extra += [name for place, name in found.items() if place not in known]
    problems += [f"{name}: extra, {_format(official[name])}" for name in extra]
    converted = {}
    for key, leaf in wanted.items():
        place = places.get(key)
        if place is None:
            problems.append(f"{key}: has no counterpart in the official network")
            continue
        shape = _official_shape(place, leaf.shape)
        if place not in found:
            problems.append(f"{key}: missing, wanted {place} {shape}")
            continue
        array = official[found[place]]
        if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"{key}: {found[place]} is {_format(array)}, wanted {shape}")
            continue
        # Axes are in our order throughout: (kh, kw, c, f), experts first. A depthwise kernel is
        # (kh, kw, c, 1) for our (kh, kw, 1, c), which lie the same in memory.
        converted[key] = array.reshape(leaf.shape).astype(leaf.dtype, copy=False)
    refuse_misfits(
        "from_tensorflow: the checkpoint does not fit the network",
        problems,
        converted,
        "make the network with the checkpoint's depth, experts and classes",
    )
    return traverse_util.unflatten_dict(converted, sep="/")


def is_weight(name: str) -> bool:
    """Returns whether a variable is a weight or its average, and not the state of training."""
    return not _TRAINING.search(name)


def _choose(
    tensors: Mapping[str, np.ndarray], ema: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The weights by their names without the suffix, and which of them have no moving average."""
    values = {name: value for name, value in tensors.items() if is_weight(name)}
    shadows = {k.removesuffix(_EMA): v for k, v in values.items() if k.endswith(_EMA)}
    raw = {k: v for k, v in values.items() if not k.endswith(_EMA)}
    if not ema:
        if shadows and not raw:
            raise ValueError(
                "from_tensorflow: the checkpoint has nothing but moving averages; pass ema=True "
                "(leave out --raw)"
            )
        return raw, []
    if not shadows:
        raise ValueError(
            f"from_tensorflow: no name of the checkpoint ends in {_EMA}, so it has no moving "
            "averages; pass ema=False (--raw) to take the weights themselves"
        )
    # The official averages are of trained weights and batch-norm averages alike (utils.py:339).
    problems = [
        f"{name}: missing, there is no {name}{_EMA}; pass ema=False (--raw) for the weights"
        for name in raw
        if name not in shadows and not name.endswith(("/moving_mean", "/moving_variance"))
    ]
    return raw | shadows, problems


def _official_places(names: Iterable[str]) -> tuple[dict[_Place, str], list[str]]:
    """The names by what they are, and those that are nothing known or something known twice."""
    parsed = {}
    numbers: dict[tuple[str, str], set[int]] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match and match[4] in _LAYERS.get(match[2], ("", {}))[1]:
            number = int(match[3] or 0)
            parsed[name] = match[1], match[2], number, match[4]
            numbers.setdefault((match[1], match[2]), set()).add(number)
    found: dict[_Place, str] = {}
    extra = [name for name in names if name not in parsed]
    for name, (block, layer, number, leaf) in parsed.items():
        rank = sorted(numbers[block, layer]).index(number)
        kind, leaves = _LAYERS[layer]
        place = _Place(block, kind, rank, leaves[leaf])
        if place in found:
            extra.append(name)
        else:
            found[place] = name
    return found, extra


def _our_places(keys: Iterable[str]) -> dict[str, _Place]:
    """The official place of each of our variables; those that have none are left out."""
    keys = set(keys)
    numbers = [int(match[1]) for key in keys if (match := re.match(r"params/layer_(\d+)/", key))]
    blocks = {1: "stem", max(numbers, default=1): "head"}
    places = {}
    for key in keys:
        _, _, path = key.partition("/")
        if match := re.fullmatch(r"classifier/(kernel|bias)", path):
            places[key] = _Place("head", "dense", 0, match[1])
        elif match := re.fullmatch(r"router_(\d+)/(kernel|bias)", path):
            places[key] = _Place(f"blocks_{int(match[1]) - 2}", "dense", 0, match[2])
        elif match := re.fullmatch(r"layer_(\d+)(?:/(.+?))?(_bn)?/([a-z]+)", path):
            number, role, norm = int(match[1]), match[2], match[3] or ""
            leaf = _NORM.get(match[4]) if norm else match[4]
            block = blocks.get(number, f"blocks_{number - 2}")
            layer, rank = _ROLES.get(f"{role}{norm}", ("", 0))
            if role is None and number in blocks:
                layer, rank = _BATCH_NORM if norm else "conv2d", 0
            elif (
                rank and layer != "se/conv2d" and f"params/layer_{number}/expand/kernel" not in keys
            ):
                rank -= 1
            if layer and leaf:
                places[key] = _Place(block, layer, rank, leaf)
    return places


def _official_shape(place: _Place, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one of our arrays in the official checkpoint."""
    if place.leaf != "kernel":
        return shape
    if place.layer == "se/conv2d":
        return (1, 1, *shape)
    if len(shape) == 5:
        return shape[0], math.prod(shape[1:])
    if place.layer == "depthwise_conv2d":
        return *shape[:2], *shape[:1:-1]
    return shape


def _format(array: np.ndarray) -> str:
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return f"{array.shape}" if floating else f"{array.dtype.name} {array.shape}"


def _plain(tree: Any) -> Any:
    """Nested mappings of any kind as dicts."""
    return {k: _plain(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree
