"""Figures of a report: how every figure looks, and those that compare networks.

matplotlib is imported when a figure is drawn and used without pyplot, so nothing is global and no
display is needed. Each function draws one figure into a PNG file.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from condconv_jax.analysis.curves import Curves, thinned

# Okabe and Ito's colours, told apart with any colour vision; without their yellow, too light for
# lines on white. Networks differ by marker and line too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vpX"
LINES = ("-", "--", "-.", ":")
GREY = "#5f6368"
DPI = 160

STYLE: dict[str, Any] = {
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6e9",
    "grid.linewidth": 0.8,
    "xtick.color": "#3c4043",
    "ytick.color": "#3c4043",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
}


@dataclasses.dataclass(frozen=True)
class Look:
    """How a network is drawn, the same in every figure of a report."""

    color: str
    marker: str
    line: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Returns the look of each network, by its place in the report."""
    return {
        name: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(names)
    }


def require_matplotlib() -> None:
    """Checks that figures can be drawn, before hours are spent on what they show.

    Raises:
      ImportError: if matplotlib is missing, with the command that installs it.
    """
    try:
        import matplotlib  # noqa: F401  only whether it is there
    except ImportError as error:
        raise ImportError(
            "figures: matplotlib is not installed; install the extra with "
            "pip install 'condconv_jax[viz]'"
        ) from error


@contextlib.contextmanager
def canvas(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yields an empty figure of width x height inches and saves it when done.

    Raises:
      ImportError: if matplotlib is missing.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
        yield figure
        # Without the version of matplotlib, so that equal figures are equal files.
        figure.savefig(path, metadata={"Software": None})


def plain(text: str, length: int = 28) -> str:
    """Returns a text for a figure: cut to `length`, and without matplotlib's mathematics."""
    return shortened(text, length).replace("$", r"\$")


def shortened(text: str, length: int = 28) -> str:
    """Returns a text cut in the middle, as names of runs often differ at their ends."""
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"


def training_curves(path: Path, curves: Mapping[str, Curves], look: Mapping[str, Look]) -> None:
    """Draws training loss and evaluation accuracy against epochs, all networks on the same axes."""
    with canvas(path, 9.6, 3.9) as figure:
        loss, accuracy = figure.subplots(1, 2)
        for name, run in curves.items():
            style = {"color": look[name].color, "linestyle": look[name].line}
            loss.plot(*thinned(run.train_epoch, run.train_loss), label=plain(name), **style)
            few = len(run.eval_epoch) <= 40
            accuracy.plot(
                run.eval_epoch,
                100 * run.eval_top1,
                label=plain(name),
                marker=look[name].marker if few else None,
                **style,
            )
        loss.set(title="Training loss", xlabel="epoch", ylabel="loss (nats)")
        accuracy.set(title="Evaluation accuracy", xlabel="epoch", ylabel="top-1 (%)")
        for axes in (loss, accuracy):
            axes.set_xlim(left=0)
            # An accuracy axis starts where the runs start, or small differences would vanish.
            axes.margins(y=0.08)
        _legend(figure, accuracy)


def routing_by_depth(
    path: Path,
    specificity: Mapping[str, Mapping[str, float]],
    spread: Mapping[str, Mapping[str, float]],
    chance: float,
    look: Mapping[str, Look],
) -> None:
    """Draws how much the class decides each layer's routing, from the first layer to the last.

    Args:
      path: of the PNG.
      specificity: network -> layer -> class specificity.
      spread: network -> layer -> class spread.
      chance: the specificity of shuffled labels.
      look: of each network.
    """
    layers = merged([list(values) for values in specificity.values()])
    shown = range(0, len(layers), -(-len(layers) // 16))
    with canvas(path, 9.6, 4.2) as figure:
        grid = figure.subplots(1, 2)
        for axes, values in zip(grid, (specificity, spread), strict=True):
            for name, by_layer in values.items():
                axes.plot(
                    [layers.index(layer) for layer in by_layer],
                    list(by_layer.values()),
                    label=plain(name),
                    color=look[name].color,
                    marker=look[name].marker,
                    linestyle=look[name].line,
                )
            axes.set_xticks(
                shown,
                [plain(layers[i]) for i in shown],
                rotation=40 if len(layers) > 3 else 0,
                ha="right" if len(layers) > 3 else "center",
                rotation_mode="anchor",
                fontsize=10,
            )
            axes.grid(visible=False, axis="x")
            axes.set_xlim(-0.4, len(layers) - 0.6)
        share, absolute = grid
        share.axhline(chance, color=GREY, linewidth=1.2, linestyle=(0, (1, 2)))
        share.annotate(
            f"shuffled labels: {chance:.3f}",
            (1, chance),
            (0, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=GREY,
            fontsize=9.5,
        )
        share.set_ylim(0, 1.02)
        absolute.set_ylim(0, 1.12 * max(1e-3, *(max(v.values()) for v in spread.values())))
        share.set(title="Share of the variance between classes", ylabel="class specificity η²")
        absolute.set(title="Spread of the class means", ylabel="standard deviation (weight)")
        _legend(figure, share)


def accuracy_against_madds(
    path: Path, points: Mapping[str, tuple[int, float, float]], look: Mapping[str, Look]
) -> None:
    """Draws top-1 against multiply-adds, one point per network.

    Args:
      path: of the PNG.
      points: network -> (MADDs, top-1, its standard error), accuracies 0 to 1.
      look: of each network.
    """
    with canvas(path, 6.4, 4.1) as figure:
        axes = figure.subplots()
        for name, (madds, top1, error) in points.items():
            axes.errorbar(
                madds / 1e6,
                100 * top1,
                yerr=100 * error,
                label=plain(name),
                color=look[name].color,
                marker=look[name].marker,
                markersize=9,
                linestyle="none",
                capsize=4,
                elinewidth=1.5,
            )
        axes.margins(x=0.2, y=0.2)
        low, high = axes.get_xlim()
        middle = (low + high) / 2
        # A difference of 1 % must not look like one of 100 %.
        half = max(high - low, 0.3 * middle) / 2
        axes.set_xlim(middle - half, middle + half)
        axes.set(xlabel="multiply-adds per image (millions)", ylabel="top-1 (%) ± standard error")
        _legend(figure, axes)


def merged(lists: Sequence[Sequence[str]]) -> list[str]:
    """Returns all names of several ordered lists once; a new one follows its predecessor."""
    found: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name not in found:
                found.insert(place, name)
            place = found.index(name) + 1
    return found


def evenly(items: Sequence[str], count: int) -> list[str]:
    """Returns up to `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _legend(figure: Any, axes: Any) -> None:
    """One row above the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))
