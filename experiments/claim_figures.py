"""Figures of the claims, drawn from the lines of results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from claim import Claim, Variant

from condconv_jax.analysis.figures import COLORS, GREY, MARKERS, canvas, plain

Lines = Mapping[str, Sequence[Mapping[str, Any]]]  # variant -> its runs


def draw_intervals(path: Path, claim: Claim, lines: Lines, half: Mapping[str, float]) -> None:
    """Draws the accuracy of a claim's variants and of each seed, and the paper's where it has one.

    Args:
      path: of the PNG.
      claim: whose variants are drawn, in its order.
      lines: runs by variant.
      half: variant -> half-width of its mean's interval in points; infinite ones are left out.
    """
    shown = [variant for variant in claim.variants if lines.get(variant.name)]
    published = any(variant.name in claim.paper for variant in shown)
    with canvas(path, 7.6, 0.9 + 0.42 * len(shown)) as figure:
        axes = figure.subplots(1, 2 if published else 1, sharey=True, squeeze=False)[0]
        places = np.arange(len(shown))[::-1]
        means = [_mean(lines[variant.name]) for variant in shown]
        errors = [half[v.name] if np.isfinite(half[v.name]) else 0 for v in shown]
        # Not bars, which would have to begin at 0 %, where no difference could be seen.
        style = {"fmt": "s", "capsize": 4, "elinewidth": 2.2}
        axes[0].errorbar(means, places, xerr=errors, color=COLORS[0], **style)
        for place, variant in zip(places, shown, strict=True):
            seeds = [100 * line["top1"] for line in lines[variant.name]]
            axes[0].plot(seeds, [place - 0.24] * len(seeds), "|", color=GREY, ms=7, mew=1.4)
        axes[0].set_yticks(places, [plain(variant.label) for variant in shown])
        axes[0].set(
            title=f"here: {claim.pictures}", xlabel="top-1 (%)", xlim=_limits(means, errors)
        )
        if published:
            found = [(p, claim.paper.get(v.name)) for p, v in zip(places, shown, strict=True)]
            known = [(p, value) for p, value in found if value is not None]
            axes[1].plot([value for _, value in known], [p for p, _ in known], "D", color=GREY)
            axes[1].set(
                title="paper: ImageNet",
                xlabel="top-1 (%)",
                xlim=_limits([value for _, value in known], [0]),
            )
        for one in axes:
            one.grid(visible=False, axis="y")
            one.tick_params(axis="y", length=0)


def draw_accuracy_madds(
    path: Path, variants: Mapping[str, Variant], lines: Lines, half: Mapping[str, float]
) -> None:
    """Draws top-1 against multiply-adds: static networks by width, CondConv by experts.

    Args:
      path: of the PNG.
      variants: by name; those of width and number of experts alone are drawn.
      lines: runs by variant.
      half: as of `draw_intervals`.
    """
    by_experts = [n for n in variants if n == "static" or n.removeprefix("experts").isdecimal()]
    by_width = {
        kind: [narrow, *(n for n in variants if n.startswith("width") and n.endswith(f"_{narrow}"))]
        for kind, narrow in (("static", "static"), ("8 experts", "experts8"))
    }
    series = {
        "static, by width": (by_width["static"], COLORS[0], "o", "-"),
        "8 experts, by width": (by_width["8 experts"], COLORS[1], "s", "-"),
        "1 to 32 experts, narrowest width": (by_experts, COLORS[2], "D", "--"),
    }
    with canvas(path, 7.2, 4.6) as figure:
        axes = figure.subplots()
        for label, (names, color, marker, line) in series.items():
            costs = {name: lines[name][0]["madds"] / 1e6 for name in names if lines.get(name)}
            if not costs:
                continue
            shown = sorted(costs, key=costs.__getitem__)
            errors = [half[name] if np.isfinite(half[name]) else 0 for name in shown]
            axes.errorbar(
                [costs[name] for name in shown],
                [_mean(lines[name]) for name in shown],
                yerr=errors,
                label=label,
                color=color,
                marker=marker,
                linestyle=line,
                capsize=3,
            )
        axes.set(xlabel="multiply-adds per image of 32 pixels (millions)", ylabel="top-1 (%)")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)


def draw_gain_by_data(path: Path, lines: Lines) -> None:
    """Draws what experts add to the static network against the share of the training pictures."""
    percents = (10, 25, 50, 100)
    with canvas(path, 9.6, 3.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, noise, title in zip(
            panels, ("", "_drop"), ("As they are", "Experts dropped in training"), strict=True
        ):
            for index, experts in enumerate((2, 8, 32)):
                pairs = {}
                for percent in percents:
                    whole = percent == 100
                    static = lines.get("static" if whole else f"data{percent}_static")
                    of_all = f"experts{experts}" if not noise else f"data100_{experts}{noise}"
                    found = lines.get(of_all if whole else f"data{percent}_{experts}{noise}")
                    if static and found:
                        pairs[percent] = _mean(found) - _mean(static)
                axes.plot(
                    list(pairs),
                    list(pairs.values()),
                    marker=MARKERS[index],
                    color=COLORS[index],
                    label=f"{experts} experts",
                )
            axes.axhline(0, color=GREY, linestyle=":")
            axes.set_xscale("log")
            axes.set_xticks(percents, [str(percent) for percent in percents])
            axes.minorticks_off()
            axes.set(title=title, xlabel="training pictures (%)")
        panels[0].set_ylabel("points over static")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)


def draw_curves(path: Path, variants: Sequence[Variant], lines: Lines) -> None:
    """Draws training loss and accuracy by epoch of the first run of some variants."""
    with canvas(path, 9.6, 3.9) as figure:
        loss, top1 = figure.subplots(1, 2)
        for index, variant in enumerate(v for v in variants if lines.get(v.name)):
            first, color = lines[variant.name][0], COLORS[index % len(COLORS)]
            loss.plot(*np.array(first["train_curve"]).T, color=color, label=plain(variant.label))
            epochs, values = np.array(first["top1_curve"]).T
            top1.plot(epochs, 100 * values, color=color, marker="o", ms=3)
        loss.set(title="Training loss", xlabel="epoch", ylabel="loss (nats)")
        top1.set(title="Test accuracy", xlabel="epoch", ylabel="top-1 (%)")
        figure.legend(*loss.get_legend_handles_labels(), loc="outside upper left", ncols=4)


def draw_routing(path: Path, run: Mapping[str, Any]) -> None:
    """Draws class-specificity by depth, and the distribution of weights at three depths."""
    layers = run["routing"]
    names = list(layers)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, 3).round().astype(int)]
    with canvas(path, 10.4, 3.7) as figure:
        depth, *histograms = figure.subplots(1, 4, width_ratios=(1.6, 1, 1, 1))
        depth.plot(
            range(len(names)), [layers[n]["specificity"] for n in names], "o-", color=COLORS[0]
        )
        depth.axhline(layers[names[0]]["chance"], color=GREY, linestyle=(0, (1, 2)))
        depth.set(title="Share of variance between classes", ylabel="class specificity η²")
        depth.set_xticks(range(len(names)), [n.removeprefix("layer_") for n in names], rotation=60)
        depth.set_ylim(bottom=0)
        edges = np.linspace(0, 1, 21)
        for axes, name in zip(histograms, chosen, strict=True):
            shares = 100 * np.array(layers[name]["histogram"])
            axes.bar(edges[:-1], shares, 0.05, align="edge", color=COLORS[1])
            axes.set(title=plain(name), xlabel="routing weight", xticks=[0, 0.5, 1])
            axes.grid(visible=False, axis="x")
        histograms[0].set_ylabel("share of weights (%)")


def draw_top_k(path: Path, lines: Lines, variants: Mapping[str, Variant]) -> None:
    """Draws accuracy against the number of routing weights kept after training, in two ways."""
    shown = [n for n in variants if n.removeprefix("experts").isdecimal() and lines.get(n)]
    with canvas(path, 9.6, 3.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, key, title in zip(
            panels,
            ("top_k", "mean_top_k"),
            ("The k largest weights", "Mean kernel, and the k largest deviations"),
            strict=True,
        ):
            for index, name in enumerate(shown):
                run, experts = lines[name][0], int(name.removeprefix("experts"))
                # 0 has no place on a logarithmic axis: half of 1, with a label of its own.
                kept = {int(k) or 0.5: v for k, v in run[key].items()} | {experts: run["top1"]}
                axes.plot(
                    sorted(kept),
                    [100 * kept[k] for k in sorted(kept)],
                    marker=MARKERS[index % len(MARKERS)],
                    color=COLORS[index % len(COLORS)],
                    label=plain(variants[name].label),
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks([0.5, 1, 2, 4, 8, 16, 32], ["0", "1", "2", "4", "8", "16", "32"])
            if lines.get("static"):
                axes.axhline(_mean(lines["static"]), color=GREY, linestyle=":", label="static")
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
                k = [k for k in (1, 2, 4, 8, 16) if form.format(k) in seconds]
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
            axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
            axes.set(title=plain(network), xlabel="k", ylabel="ms for one picture")
            axes.set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)


def _mean(runs: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([100 * run["top1"] for run in runs]))


def _limits(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """An axis on which differences can be seen: it need not begin at 0."""
    low, high = min(values) - max(errors), max(values) + max(errors)
    margin = max(2.0, 0.35 * (high - low))
    return max(0.0, low - margin), high + margin / 3
