"""Sparse routing of a network that was trained with all of its experts, without training it anew.

Sigmoid routing weights are seldom near 0: leaving out the smaller ones changes every kernel a lot,
and a network that loses half of its experts guesses. But most weights hardly move from picture to
picture. So what all pictures have in common is mixed once and for all, and only deviations from it
are left out:

sum_e r_e W_e = sum_e m_e W_e + sum_e (r_e - m_e) W_e,        m the mean of r over some pictures

The first sum is one more expert, of weight 1. Of the second the k largest deviations are kept, so
that an example reads k + 1 experts. This form is ours; the authors' response suggests to leave out
small weights.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from condconv_jax.models.network import Network
from condconv_jax.models.routing import CENTRED
from condconv_jax.nn import Router

Means = Mapping[str, np.ndarray]


def mean_routing(
    model: Network, variables: Mapping[str, Any], batches: Iterable[Float[Array, "b h w c"]]
) -> dict[str, np.ndarray]:
    """Returns the mean routing weights (e,) of each router and of each layer, by module path.

    Args:
      model: a CondConv network.
      variables: of it.
      batches: normalised images; a few hundred pictures of the kind that it is to see suffice.

    Raises:
      ValueError: if there are no images.
    """

    @jax.jit
    def sums(variables: Mapping[str, Any], images: Array) -> dict[str, Array]:
        _, seen = model.apply(
            variables,
            images,
            train=False,
            mutable=["routing", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, Router),
        )
        found = {}
        for collection, name in (("intermediates", "__call__"), ("routing", "weights")):
            for path, weights in jax.tree_util.tree_leaves_with_path(seen.get(collection, {})):
                keys = [entry.key for entry in path if hasattr(entry, "key")]
                if keys[-1] == name:
                    found["/".join(keys[:-1])] = weights.sum(axis=0)
        return found

    totals: dict[str, np.ndarray] = {}
    count = 0
    for images in batches:
        count += len(images)
        for path, total in jax.device_get(sums(variables, images)).items():
            totals[path] = totals.get(path, 0) + total.astype(np.float64)
    if not count:
        raise ValueError("mean_routing: no images; pass some of the kind that are to be seen")
    return {path: (total / count).astype(np.float32) for path, total in totals.items()}


def sparsifies(model: Network) -> bool:
    """Whether `sparsify` takes a network: CondConv with all experts, by sigmoid or softmax."""
    options = model.routing
    return (
        bool(model.conditional_layers())
        and model.cond_layer == "condconv"
        and not (options.centred or options.top_k or options.hierarchical)
        and options.activation in CENTRED
    )


def sparsify(
    model: Network, variables: Mapping[str, Any], means: Means, top_k: int
) -> tuple[Network, dict[str, Any]]:
    """Returns a network that mixes the experts' mean and the k experts that deviate most from it.

    With k = e it computes what the network does. Each layer has one more expert.

    Args:
      model: a CondConv network with routing by "sigmoid" or "softmax".
      variables: of it, with float experts.
      means: of `mean_routing`.
      top_k: k, 1 to e.

    Raises:
      ValueError: if the network has no experts, is sparse already or no such CondConv network, its
        experts are not float, or k is out of its range.
    """
    if not model.conditional_layers():
        raise ValueError("sparsify: the network has no experts")
    options = model.routing
    if options.centred or options.top_k:
        raise ValueError("sparsify: the routing is sparse already; pass the dense network")
    if not sparsifies(model):
        raise ValueError(
            f"sparsify: cond_layer is {model.cond_layer!r}, routing by {options.activation!r}"
            f'{", hierarchical" * options.hierarchical}; wants "condconv", and routing by '
            f"{' or '.join(CENTRED)} that is not hierarchical"
        )
    if not 1 <= top_k <= model.num_experts:
        raise ValueError(f"sparsify: top_k is {top_k}; pass 1 to {model.num_experts}, the experts")
    routing = dataclasses.replace(options, centred=True, top_k=top_k)
    params = _extend(variables["params"], means, "")
    return model.clone(routing=routing), {**variables, "params": params}


def _extend(params: Mapping[str, Any], means: Means, path: str) -> dict[str, Any]:
    """Parameters with the mean expert after the others, and each router's centre."""
    if path in means and "kernel" in params:
        mean = means[path]
        if path.split("/")[-1].startswith("router"):
            return {**params, "centre": mean}
        extended = dict(params)
        for name in ("kernel", "bias"):
            if name in params:
                extended[name] = _with_mean(np.asarray(params[name]), mean, f"{path}/{name}")
        return extended
    return {
        name: _extend(tree, means, f"{path}/{name}" if path else name)
        if isinstance(tree, Mapping)
        else tree
        for name, tree in params.items()
    }


def _with_mean(experts: np.ndarray, mean: np.ndarray, where: str) -> np.ndarray:
    if len(experts) != len(mean) or not np.issubdtype(experts.dtype, np.floating):
        raise ValueError(
            f"sparsify: {where} is {experts.shape} in {experts.dtype}, for routing weights "
            f"{mean.shape}; pass float experts, one for each weight"
        )
    expert = np.tensordot(mean, experts.astype(np.promote_types(experts.dtype, mean.dtype)), 1)
    return np.concatenate([experts, expert[None].astype(experts.dtype)])
