"""The figures of routing weights as SVG for the page, with their values on hover."""

from collections.abc import Mapping, Sequence

import numpy as np

from condconv_jax.analysis import svg
from condconv_jax.analysis.figures import Look, evenly, merged
from condconv_jax.analysis.routing import (
    NEAR,
    grouped_by_expert,
    mean_by_class,
    most_specific_classes,
    share_near,
    weight_histogram,
)
from condconv_jax.analysis.routing_figures import BINS, CLASSES, DEPTHS, PANELS, weight_range

# Rows at most: 100 classes of 32 experts at three depths are 1.5 MB of page already.
DRAWN_CLASSES = 200


def draw_distributions(routing: Mapping[str, np.ndarray], color: str) -> str:
    """Returns histograms of the routing weights, of the layers of `weight_distributions`."""
    layers = evenly(list(routing), PANELS)
    edges = np.linspace(*weight_range(routing.values()), BINS + 1)
    return svg.histograms(
        {layer: weight_histogram(routing[layer], edges) for layer in layers},
        edges,
        color,
        notes={layer: f"{100 * share_near(routing[layer], 0.0):.0f} % near 0" for layer in layers},
        band=(-NEAR, NEAR),
    )


def draw_class_maps(
    routing: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]
) -> tuple[str, list[str], list[int]]:
    """Returns heat maps of the mean routing weights by class, the layers and the classes drawn.

    The layers are those of `class_heat_maps`, the classes all with images, up to `DRAWN_CLASSES`;
    of more than fit its figure, those that the last layer routes alike are next to each other.

    Args:
      routing: layer -> weights (n, e), in order.
      labels: class of each image (n,).
      class_names: by label.
    """
    layers = evenly(list(routing), DEPTHS)
    means = {layer: mean_by_class(routing[layer], labels, len(class_names)) for layer in layers}
    classes = most_specific_classes(means[layers[-1]], DRAWN_CLASSES)
    if len(classes) > CLASSES:
        classes = grouped_by_expert(means[layers[-1]], classes)
    low, high = weight_range(routing.values())
    drawing = svg.heat_maps(
        {layer: means[layer][classes] for layer in layers},
        [class_names[c] for c in classes],
        low,
        high,
        label="mean routing weight",
    )
    return drawing, layers, classes


def draw_depth(
    specificity: Mapping[str, Mapping[str, float]],
    spread: Mapping[str, Mapping[str, float]],
    chance: float,
    look: Mapping[str, Look],
) -> list[str]:
    """Returns how much the class decides each layer's routing; arguments as `routing_by_depth`."""
    layers = merged([list(values) for values in specificity.values()])
    shuffled = (chance, f"shuffled labels: {chance:.3f}")
    largest = 1.12 * max(1e-3, *(max(values.values()) for values in spread.values()))
    return [
        svg.lines(
            specificity, layers, look, title="Class specificity η²", top=1.02, reference=shuffled
        ),
        svg.lines(spread, layers, look, title="Spread of the class means (weight)", top=largest),
    ]
