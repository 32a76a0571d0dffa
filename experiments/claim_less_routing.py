"""Accuracy of a trained network with less of its routing than it was trained with, for claim i."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen

from condconv_jax import models, ops
from condconv_jax.cli.compressing import calibration_pictures, candidates_of, score
from condconv_jax.cli.network import BoundNetwork, network_of
from condconv_jax.cli.trained import Trained

CALIBRATION_IMAGES = 1024  # of training, over which routing weights are averaged


def with_less_routing(trained: Trained, variant: str) -> dict[str, dict[str, float]]:
    """Accuracy with less routing than a network was trained with, by how much is left.

    "mean_routing" has all weights at their means, for all pictures alike, in the "convolutions" or
    the "classifier" alone. "mean_top_k" has in every layer the mean kernel, and the k weights that
    deviate most from their mean, with k = 0 the mean kernel alone. "last_top_k" keeps the k
    largest weights of the classifier: in layers before it, too, kernels would shrink under
    statistics of batch norms that are those of all weights. Of the networks alone that differ by
    their number of experts, and one seed, since each number is an evaluation.
    """
    found: dict[str, dict[str, float]] = {"mean_routing": {}, "mean_top_k": {}, "last_top_k": {}}
    if not variant.removeprefix("experts").isdecimal() or trained.config["seed"]:
        return found
    network = network_of(trained.config, trained.experiment.task, trained.state)
    last = f"router_{max(network.task.model.conditional_layers())}"
    for part, chosen in (
        ("convolutions", lambda name: name != last),
        ("classifier", lambda name: name == last),
    ):
        found["mean_routing"][part] = score(trained, with_mean_routing(trained, chosen))
    found["mean_top_k"]["0"] = score(trained, with_mean_routing(trained))
    for candidate in candidates_of(trained, images=CALIBRATION_IMAGES):
        if candidate.top_k and candidate.experts == "float32":
            k = candidate.top_k
            found["mean_top_k"][str(k)] = score(trained, candidate.network)
            with linen.intercept_methods(functools.partial(_keep_largest, last, k)):
                found["last_top_k"][str(k)] = score(trained, network)
    return found


def _keep_largest(
    router: str, k: int, call: Callable[..., Any], args: Any, options: Any, context: Any
) -> Any:
    """Keeps the k largest weights of one router, as flax.linen.intercept_methods has it."""
    weights = call(*args, **options)
    if context.module.name == router and context.method_name == "__call__":
        return ops.keep_top_k(weights, k)
    return weights


def with_mean_routing(
    trained: Trained, chosen: Callable[[str], bool] = lambda _: True
) -> BoundNetwork:
    """Returns the network with routing weights at their means, for all pictures alike.

    Args:
      trained: a network with a router of sigmoids for each layer.
      chosen: of which routers, by name; of all by default.
    """
    network = network_of(trained.config, trained.experiment.task, trained.state)
    variables = {"params": network.params, **network.model_state}
    pictures = calibration_pictures(trained, CALIBRATION_IMAGES)
    means = models.mean_routing(network.task.model, variables, pictures)
    params = dict(network.params)
    for name, mean in means.items():
        if name.startswith("router") and chosen(name):
            fc = params[name]
            # Of a sigmoid, whose weights of 0 or 1 to the last digit have no finite logit.
            mean = np.clip(mean, 1e-7, 1 - 1e-7)
            params[name] = {"kernel": 0 * fc["kernel"], "bias": np.log(mean / (1 - mean))}
    return dataclasses.replace(network, params=jax.device_put(params))
