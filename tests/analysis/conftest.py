"""Networks made of random numbers, for the report."""

import numpy as np
import pytest

from condconv_jax.analysis import AnalysedNetwork, Curves, SwitchedOff, find_favourites
from condconv_jax.config import classification
from condconv_jax.runtime import Sum


def make_network(
    name, *, layers=("layer_7", "layer_10", "classifier"), experts=4, classes=10, n=60, correct=45
):
    """A network whose routing follows the class more with depth; without layers, a static one."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    config = classification()
    config.model.num_experts = experts if layers else 0
    routing = {}
    for depth, layer in enumerate(layers, start=1):
        favoured = rng.normal(size=(classes, experts))[labels]
        logits = 3 * depth / len(layers) * favoured + rng.normal(size=(n, experts))
        routing[layer] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    epochs = np.linspace(0.5, 3.0, 6)
    return AnalysedNetwork(
        name=name,
        workdir=f"runs/{name}",
        step=141,
        config=config.to_dict(),
        madds=4_630_000 if layers else 3_010_000,
        overhead=1_600_000 if layers else 0,
        params=1_630_000 if layers else 215_600,
        scores={"top1": Sum(np.float64(correct), np.int64(n))},
        curves=Curves(
            train_epoch=epochs,
            train_loss=2.3 / epochs,
            eval_epoch=epochs[1::2],
            eval_top1=np.array([0.3, 0.5, 0.75]),
            seconds=78.7,
            images_per_second=326.6,
        ),
        labels=labels,
        routing=routing,
        favourites={
            layer: find_favourites(
                routing[layer],
                labels,
                lambda row: np.full((8, 8, 3), row % 256, np.uint8),
                pictures=3,
            )
            for layer in layers[-2:]
        },
        switched_off=SwitchedOff(layers[-2], 20, 1.0, np.array([1.0, 0.75, 0.5, 1.0]))
        if layers
        else None,
    )


@pytest.fixture(name="make_network", scope="session")
def _make_network():
    return make_network
