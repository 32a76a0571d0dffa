"""Figures of claim i: routing by depth, and what fewer routing weights cost and save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from claim import Variant
from claim_evidence import Lines, mean
from claim_latency import KEPT

from condconv_jax.analysis.figures import COLORS, GREY, MARKERS, canvas, plain


def draw_routing(path: Path, run: Mapping[str, Any]) -> None:
    """Draws how routing tells classes apart by depth, and the weights at three depths.

    Args:
      path: of the PNG.
      run: one line of results, of a network with experts.
    """
    layers = run["routing"]
    names = list(layers)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, 3).round().astype(int)]
    with canvas(path, 12.0, 3.7) as figure:
        share, spread, *histograms = figure.subplots(1, 5, width_ratios=(1.5, 1.5, 1, 1, 1))
        for axes, measure, title in (
            (share, "specificity", "Class specificity η²"),
            (spread, "spread", "Spread of class means"),
        ):
            values = [layers[name][measure] for name in names]
            axes.plot(range(len(names)), values, "o-", color=COLORS[0])
            axes.set_title(title)
            labels = [name.removeprefix("layer_") for name in names]
            axes.set_xticks(range(len(names)), labels, rotation=60)
            axes.set_ylim(bottom=0)
        chance = layers[names[0]]["chance"]
        share.axhline(chance, color=GREY, linestyle=(0, (1, 2)))
        share.annotate("by chance", (0, chance), (0, 4), textcoords="offset points", color=GREY)
        edges = np.linspace(0, 1, 21)
        for axes, name in zip(histograms, chosen, strict=True):
            shares = 100 * np.array(layers[name]["histogram"])
            axes.bar(edges[:-1], shares, 0.05, align="edge", color=COLORS[1])
            axes.set(title=plain(name), xlabel="routing weight", xticks=[0, 0.5, 1])
            axes.grid(visible=False, axis="x")
        histograms[0].set_ylabel("share of weights (%)")


def draw_top_k(path: Path, lines: Lines, variants: Mapping[str, Variant]) -> None:
    """Draws accuracy against the number of routing weights kept after training, in two ways."""
    shown = sorted(
        (n for n in variants if n.removeprefix("experts").isdecimal() and lines.get(n)),
        key=lambda name: int(name.removeprefix("experts")),
    )
    with canvas(path, 9.6, 3.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, key, title in zip(
            panels,
            ("last_top_k", "mean_top_k"),
            ("The last layer's k largest weights", "Mean kernel and k deviations, every layer"),
            strict=True,
        ):
            for index, name in enumerate(shown):
                run, experts = lines[name][0], int(name.removeprefix("experts"))
                # 0 has no place on a logarithmic axis: half of 1, with a label of its own.
                left = run.get(key, {})  # none in lines that are older than the measure
                kept = {int(k) or 0.5: v for k, v in left.items()} | {experts: run["top1"]}
                axes.plot(
                    sorted(kept),
                    [100 * kept[k] for k in sorted(kept)],
                    marker=MARKERS[index % len(MARKERS)],
                    color=COLORS[index % len(COLORS)],
                    label=plain(variants[name].label),
                )
            axes.set_xscale("log", base=2)
            ticks = [0, 1, 2, 4, 8, 16, 32] if key == "mean_top_k" else [1, 2, 4, 8, 16, 32]
            axes.set_xticks([k or 0.5 for k in ticks], [str(k) for k in ticks])
            if lines.get("static"):
                axes.axhline(
                    mean(lines["static"], "top1", 100), color=GREY, linestyle=":", label="static"
                )
            axes.set(title=title, xlabel="k")
        panels[0].set_ylabel("top-1 (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6)


def draw_latency(path: Path, latencies: Mapping[str, Mapping[str, float]]) -> None:
    """Draws the latency of one picture against the number of routing weights kept.

    Args:
      path: of the PNG.
      latencies: network -> seconds by form, of experiments/claim_latency.py.
    """
    with canvas(path, 9.6, 3.9) as figure:
        panels = figure.subplots(1, len(latencies), squeeze=False)[0]
        for axes, (network, seconds) in zip(panels, latencies.items(), strict=True):
            for index, (form, label) in enumerate(
                (("{} largest", "k largest"), ("mean + {}", "mean + k"))
            ):
                k = [k for k in KEPT if form.format(k) in seconds]
                axes.plot(
                    k,
                    [1e3 * seconds[form.format(i)] for i in k],
                    marker=MARKERS[index],
                    color=COLORS[index],
                    label=label,
                )
            for key, label, line in (("all", "all 32", "--"), ("static", "static", ":")):
                axes.axhline(1e3 * seconds[key], color=GREY, linestyle=line, label=label)
            axes.set_xscale("log", base=2)
            axes.set_xticks(KEPT, [str(k) for k in KEPT])
            axes.set(title=plain(network, 44), xlabel="k", ylabel="ms for one picture")
            axes.set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
