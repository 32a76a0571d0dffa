"""Figures of one network's routing: distribution, means by class, the images experts like."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from condconv_jax.analysis.favourites import Favourites
from condconv_jax.analysis.figures import GREY, canvas, evenly, plain
from condconv_jax.analysis.routing import (
    NEAR,
    mean_by_class,
    most_specific_classes,
    share_near,
    weight_histogram,
)

PANELS = 9  # histograms at most
DEPTHS = 3  # heat maps
CLASSES = 20  # rows of a heat map at most, so that their names stay readable
BINS = 25


def weight_distributions(path: Path, routing: Mapping[str, np.ndarray], color: str) -> list[str]:
    """Draws a histogram of the routing weights of each layer; returns the layers drawn.

    Args:
      path: of the PNG.
      routing: layer -> weights (n, e), in order; of more than `PANELS` evenly spaced ones.
      color: of the network.
    """
    layers = evenly(list(routing), PANELS)
    low, high = weight_range(routing.values())
    edges = np.linspace(low, high, BINS + 1)
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    with canvas(path, 3.2 * columns + 0.4, 2.15 * rows + 0.5) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(layers) :]:
            axes.remove()
        for index, layer in enumerate(layers):
            axes = grid.flat[index]
            shares = 100 * weight_histogram(routing[layer], edges)
            axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=color, linewidth=0)
            axes.axvspan(max(low, -NEAR), NEAR, color=GREY, alpha=0.14, linewidth=0)
            axes.set_title(plain(layer))
            axes.annotate(
                f"{100 * share_near(routing[layer], 0.0):.0f} % near 0",
                (0.97, 0.94),
                xycoords="axes fraction",
                ha="right",
                va="top",
                fontsize=10,
                color="#202124",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
            axes.set_xlim(low, high)
            axes.grid(visible=False, axis="x")
            if index + columns >= len(layers):  # the last of its column
                axes.tick_params(labelbottom=True)
        grid.flat[0].set_ylim(0, 1.22 * grid.flat[0].get_ylim()[1])  # room for the text
        if (low, high) == (0.0, 1.0):
            grid.flat[0].set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        figure.supxlabel("routing weight", fontsize=11)
        figure.supylabel("share of weights (%)", fontsize=11)
    return layers


def class_heat_maps(
    path: Path, routing: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Draws the mean routing weights by class and expert at three depths.

    Args:
      path: of the PNG.
      routing: layer -> weights (n, e), in order.
      labels: class of each image (n,).
      class_names: by label.

    Returns:
      The layers and the classes drawn: all classes with images, or of more than `CLASSES` those
      that the last layer routes most unlike the average (`most_specific_classes`).
    """
    means, classes = means_at_depths(routing, labels, len(class_names))
    names = [class_names[c] for c in classes]
    draw_class_means(path, means, names, weight_range(routing.values()))
    return list(means), classes


def means_at_depths(
    routing: Mapping[str, np.ndarray], labels: np.ndarray, num_classes: int
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Returns what `class_heat_maps` draws: mean weights (k, e) by layer, and the k classes.

    Args:
      routing: layer -> weights (n, e), in order.
      labels: class of each image (n,).
      num_classes: of which the labels are; those without images are left out.
    """
    means = {
        layer: mean_by_class(routing[layer], labels, num_classes)
        for layer in evenly(list(routing), DEPTHS)
    }
    classes = most_specific_classes(list(means.values())[-1], CLASSES)
    return {layer: of_all[classes] for layer, of_all in means.items()}, classes


def draw_class_means(
    path: Path,
    means: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    limits: tuple[float, float],
) -> None:
    """Draws mean routing weights by class and expert, a heat map of each layer.

    Args:
      path: of the PNG.
      means: layer -> mean weights (k, e), in order.
      class_names: of the k classes.
      limits: of the colours.
    """
    names = [plain(name) for name in class_names]
    experts = [of_layer.shape[1] for of_layer in means.values()]
    panel = min(3.1, max(2.2, 0.26 * max(experts)))
    width = panel * len(means) + 0.085 * max(map(len, names)) + 1.4
    with canvas(path, width, 1.5 + 0.27 * max(5, len(names))) as figure:
        grid = figure.subplots(1, len(means), sharey=True, squeeze=False)
        for axes, (layer, of_layer) in zip(grid.flat, means.items(), strict=True):
            image = axes.imshow(
                of_layer, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto"
            )
            axes.set_title(plain(layer))
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(length=0)
            axes.set_xticks(_ticks(of_layer.shape[1]))
            axes.set_xlabel("expert")
        figure.colorbar(image, ax=grid, label="mean routing weight", pad=0.015, aspect=25)


def weight_range(arrays: Any) -> tuple[float, float]:
    """Returns the axis of routing weights: 0 to 1, or as far as they reach beyond it."""
    arrays = list(arrays)
    low = min(float(a.min()) for a in arrays)
    high = max(float(a.max()) for a in arrays)
    return min(0.0, low), max(1.0, high)


def _ticks(experts: int) -> range:
    """Numbers of experts that fit below a heat map."""
    return range(
        0, experts, next(s for s in (1, 2, 4, 8, 16, 32, 64, experts) if experts / s <= 10)
    )


def favourite_pictures(path: Path, found: Favourites, class_names: Sequence[str]) -> None:
    """Draws the images that experts weigh most, a row for each expert, heaviest first.

    Args:
      path: of the PNG.
      found: of one layer.
      class_names: by label.
    """
    rows, columns = found.labels.shape
    with canvas(path, 0.98 * columns + 0.5, 1.32 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for row, column in np.ndindex(rows, columns):
            axes = grid[row, column]
            axes.imshow(found.pictures[row, column])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            name = plain(class_names[int(found.labels[row, column])], 15)
            axes.set_xlabel(f"{name}\n{found.weights[row, column]:.3f}", fontsize=7.5, labelpad=2)
        for row, expert in enumerate(found.experts):
            grid[row, 0].set_ylabel(f"expert {expert}", fontsize=9.5)
