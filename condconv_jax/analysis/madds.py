"""Multiply-adds of a network, counted from its traced program.

A count is a property of the mathematics: the network is traced at batch 1 with the reference
method, whichever method runs it. Counted are the products of convolutions and matrix
multiplications, those of mixing and routing included; padded taps count, as in the published
numbers; element-wise work (batch norm, activations, pooling) does not. Where routing keeps k
weights, k experts are mixed, by sums of scaled arrays, whose scaling counts as the products it is.
"""

import collections
import dataclasses
import math
from collections.abc import Collection, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from condconv_jax.nn import variable_shapes

FORMS = {"conv": "reference", "mixture": "mixture"}
# Name of the row for parameters of layers that multiply nothing, such as batch norms.
REST = "others"
# Named scopes of the ops that mix experts; in the second the only products are element-wise.
SPARSE_MIXING = "mix_top_k"
MIXING = {"mix_experts", SPARSE_MIXING}


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer of a network.

    Attributes:
      name: path of the module, e.g. "layer_7/pointwise".
      conv: MADDs of its convolution or matrix product (of E of them in the mixture form, whose
        weighting is element-wise and not counted).
      mixing: MADDs of mixing experts.
      routing: MADDs of routing functions.
      params: number of parameters.
    """

    name: str
    conv: int = 0
    mixing: int = 0
    routing: int = 0
    params: int = 0

    @property
    def total(self) -> int:
        """MADDs in all."""
        return self.conv + self.mixing + self.routing


def count_madds(
    model: nn.Module, image_size: int | tuple[int, int], *, channels: int = 3, form: str = "conv"
) -> int:
    """Returns the multiply-adds of one image.

    Args:
      model: an unbound network. A field `method`, where it has one, is set to the form's; without
        one the layers are counted as they run.
      image_size: pixels, of a square or (height, width).
      channels: of the images.
      form: "conv" counts CondConv as one convolution with a mixed kernel; "mixture" as E
        convolutions whose outputs are weighted.

    Raises:
      ValueError: for an unknown form, the mixture form of a network without `method`, or a program
        that multiplies in a loop of unknown length.
    """
    return sum(c.total for c in layer_costs(model, image_size, channels=channels, form=form))


def layer_costs(
    model: nn.Module, image_size: int | tuple[int, int], *, channels: int = 3, form: str = "conv"
) -> list[LayerCost]:
    """Returns the cost of each layer with products, in the order of the forward pass.

    A last row `REST` holds the parameters of all other layers.

    Args and errors: as `count_madds`.
    """
    if form not in FORMS:
        raise ValueError(f"count_madds: form is {form!r}; pass one of {', '.join(FORMS)}")
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    variables = variable_shapes(model, size, channels)
    if hasattr(model, "method"):
        model = model.clone(method=FORMS[form])
    elif form != "conv":
        raise ValueError(
            f"count_madds: {type(model).__name__} has no field `method` by which to run CondConv "
            f"in the form {form!r}; give it one and pass it on to its layers"
        )
    program = jax.make_jaxpr(model.apply)(variables, images)
    params = _params_by_module(variables["params"])
    costs: dict[str, collections.Counter[str]] = {}
    for scope, madds in _products(program.jaxpr, ""):
        layer, part = _layer_of(scope, params)
        costs.setdefault(layer, collections.Counter())[part] += madds
    layers = [LayerCost(name, params=params.pop(name, 0), **parts) for name, parts in costs.items()]
    rest = sum(params.values())
    return [*layers, LayerCost(REST, params=rest)] if rest else layers


def _params_by_module(params: Any) -> dict[str, int]:
    """Number of parameters by the path of the module that holds them."""
    sizes: collections.Counter[str] = collections.Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        sizes["/".join(str(key.key) for key in path[:-1])] += math.prod(leaf.shape)
    return dict(sizes)


def _layer_of(scope: str, modules: Collection[str]) -> tuple[str, str]:
    """The module of a product and the part of its cost, from the named scopes around it."""
    names = [name for name in scope.split("/") if name][1:]  # the first is the network itself
    lengths = range(len(names), 0, -1)
    layer = next((p for n in lengths if (p := "/".join(names[:n])) in modules), "")
    if any(name == "router" or name.startswith("router_") for name in names):
        return layer, "routing"
    return layer, "conv" if MIXING.isdisjoint(names) else "mixing"


def _products(jaxpr: core.Jaxpr, scope: str) -> Iterator[tuple[str, int]]:
    """Yields (named scopes, MADDs) of every product in a program, loops multiplied out."""
    for eqn in jaxpr.eqns:
        where = f"{scope}/{eqn.source_info.name_stack}"
        name = eqn.primitive.name
        if name == "conv_general_dilated":
            yield where, _conv_madds(eqn)
        elif name == "dot_general":
            yield where, _dot_madds(eqn)
        elif name == "ffi_call" and eqn.params["target_name"] in FOREIGN:
            for inner, madds in FOREIGN[eqn.params["target_name"]](eqn).items():
                yield f"{where}/{inner}", madds
        elif name == "mul" and SPARSE_MIXING in where.split("/"):
            yield where, math.prod(_shape(eqn.outvars[0]))
        elif name == "scan":
            for inner, madds in _products(eqn.params["jaxpr"].jaxpr, where):
                yield inner, madds * eqn.params["length"]
        elif name == "cond":
            branches = [list(_products(b.jaxpr, where)) for b in eqn.params["branches"]]
            yield from max(branches, key=lambda found: sum(m for _, m in found))
        elif name == "while":
            parts = (eqn.params["cond_jaxpr"].jaxpr, eqn.params["body_jaxpr"].jaxpr)
            if any(list(_products(part, where)) for part in parts):
                raise ValueError(
                    f"count_madds: {where} multiplies in a loop of unknown length; use jax.lax.scan"
                )
        else:
            for inner_jaxpr in _inner_jaxprs(eqn.params):
                yield from _products(inner_jaxpr, where)


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs that a call (jit, custom_vjp, remat, shard_map) runs, each once."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _conv_madds(eqn: core.JaxprEqn) -> int:
    kernel = _shape(eqn.invars[1])
    features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(_shape(eqn.outvars[0])) * math.prod(kernel) // features


def _dot_madds(eqn: core.JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = _shape(eqn.invars[0])
    return math.prod(_shape(eqn.outvars[0])) * math.prod(left[axis] for axis in contracted)


def _depthwise_madds(eqn: core.JaxprEqn) -> dict[str, int]:
    _, kh, kw, _ = _shape(eqn.invars[1])
    return {"product": math.prod(_shape(eqn.outvars[0])) * kh * kw}


def _mix_madds(eqn: core.JaxprEqn) -> dict[str, int]:
    return {"mix_experts": math.prod(_shape(eqn.outvars[0])) * _shape(eqn.invars[1])[0]}


def _fused_madds(eqn: core.JaxprEqn) -> dict[str, int]:
    num_experts, *kernel = _shape(eqn.invars[1])
    batch, *positions, _ = _shape(eqn.outvars[0])
    kernels = batch * math.prod(kernel)
    return {"product": kernels * math.prod(positions), "mix_experts": kernels * num_experts}


# What the forward passes of `ops.native` multiply, by named scope.
FOREIGN = {
    "condconv_DepthwiseForward": _depthwise_madds,
    "condconv_MixExperts": _mix_madds,
    "condconv_FusedForward": _fused_madds,
}


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
