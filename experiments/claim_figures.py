"""Figures of the claims, drawn from the lines of results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from claim import Claim, Variant
from claim_evidence import Evidence, Lines
from claim_statistics import SeedDeviation

from condconv_jax.analysis.figures import COLORS, GREY, LINES, MARKERS, canvas, plain


def draw_intervals(
    path: Path, claim: Claim, variants: Sequence[Variant], evidence: Evidence
) -> None:
    """Draws the accuracy of variants and of each seed, and the paper's where it has one.

    Args:
      path: of the PNG.
      claim: theirs.
      variants: those that are drawn, from the top.
      evidence: of their runs; those without any are left out.
    """
    lines, half = evidence.runs, evidence.half
    shown = [v for v in variants if lines[v.name] or evidence.dead[v.name]]
    learned = [v for v in shown if lines[v.name]]
    published = any(variant.name in claim.paper for variant in shown)
    with canvas(path, 8.4, 1.3 + 0.42 * len(shown)) as figure:
        axes = figure.subplots(1, 2 if published else 1, sharey=True, squeeze=False)[0]
        place_of = {variant.name: -index for index, variant in enumerate(shown)}
        means = [_mean(lines[variant.name]) for variant in learned]
        errors = [_drawable(half[variant.name]) for variant in learned]
        limits = _limits(means, errors)
        # Not bars, which would have to begin at 0 %, where no difference could be seen.
        axes[0].errorbar(
            means,
            [place_of[variant.name] for variant in learned],
            xerr=errors,
            fmt="s",
            capsize=4,
            elinewidth=2.2,
            color=COLORS[0],
            label="mean and 95 % interval",
        )
        seeds = [(100 * run["top1"], place_of[v.name]) for v in learned for run in lines[v.name]]
        x, y = np.array(seeds).T
        axes[0].plot(x, y - 0.27, "|", color=GREY, ms=7, mew=1.4, label="each seed")
        for variant in shown:
            if variant not in learned:
                place = place_of[variant.name]
                axes[0].text(limits[0], place, " learned nothing", va="center", color=GREY)
        axes[0].set_yticks(list(place_of.values()), [plain(variant.label, 40) for variant in shown])
        axes[0].set(title=f"here: {claim.pictures}", xlabel="top-1 (%)", xlim=limits)
        if published:
            known = [(p, claim.paper[n]) for n, p in place_of.items() if n in claim.paper]
            axes[1].plot([value for _, value in known], [p for p, _ in known], "D", color=GREY)
            axes[1].set(
                title="paper: ImageNet",
                xlabel="top-1 (%)",
                xlim=_limits([value for _, value in known], [0]),
            )
        axes[0].set_ylim(-len(shown) + 0.4, 0.6)
        for one in axes:
            one.grid(visible=False, axis="y")
            one.tick_params(axis="y", length=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)


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
            errors = [_drawable(half[name]) for name in shown]
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


def draw_gain_by_data(path: Path, lines: Lines, deviation: SeedDeviation) -> None:
    """Draws what experts add to the static network against the share of the training pictures."""
    percents = (10, 25, 50, 100)
    with canvas(path, 9.6, 3.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, noise, title in zip(
            panels, ("", "_drop"), ("All experts", "Experts dropped in training"), strict=True
        ):
            for index, experts in enumerate((2, 8, 32)):
                pairs = {}
                for percent in percents:
                    whole = percent == 100
                    static = lines.get("static" if whole else f"data{percent}_static")
                    of_all = f"experts{experts}" if not noise else f"data100_{experts}{noise}"
                    found = lines.get(of_all if whole else f"data{percent}_{experts}{noise}")
                    if static and found:
                        half = _drawable(deviation.half_width(len(static), len(found)))
                        pairs[percent] = (_mean(found) - _mean(static), half)
                axes.errorbar(
                    # Beside one another, so that their intervals are seen.
                    [percent * (0.94, 1.0, 1.06)[index] for percent in pairs],
                    [gain for gain, _ in pairs.values()],
                    yerr=[half for _, half in pairs.values()],
                    capsize=3,
                    marker=MARKERS[index],
                    color=COLORS[index],
                    label=f"{experts} experts",
                )
            axes.axhline(0, color=GREY, linestyle=":")
            axes.set_xscale("log")
            axes.set_xticks(percents, [str(percent) for percent in percents])
            axes.minorticks_off()
            axes.set(title=title, xlabel="training pictures (%)", xlim=(8.5, 118))
        panels[0].set_ylabel("points over static")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)


def draw_curves(path: Path, networks: Sequence[Sequence[Variant]], lines: Lines) -> None:
    """Draws training loss and accuracy by epoch: each seed, and their mean.

    Args:
      path: of the PNG.
      networks: variants, those of one colour together; they differ by their line.
      lines: runs by variant.
    """
    with canvas(path, 9.6, 3.9) as figure:
        loss, top1 = figure.subplots(1, 2)
        for color, alike in zip(COLORS, networks, strict=False):
            for style, variant in zip(LINES, alike, strict=False):
                runs = lines.get(variant.name)
                if not runs:
                    continue
                look = {"color": color, "linestyle": style}
                for axes, curve, scale in ((loss, "train_curve", 1), (top1, "top1_curve", 100)):
                    of_seeds = [np.array(run[curve]).T * [[1], [scale]] for run in runs]
                    for one in of_seeds:
                        axes.plot(*one, **look, linewidth=0.8, alpha=0.4)
                    axes.plot(*np.mean(of_seeds, axis=0), **look, label=plain(variant.label))
        loss.set(title="Training loss: mean, and each seed", xlabel="epoch", ylabel="loss (nats)")
        top1.set(title="Test accuracy", xlabel="epoch", ylabel="top-1 (%)")
        figure.legend(*loss.get_legend_handles_labels(), loc="outside upper left", ncols=3)


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
        chance = layers[names[0]]["chance"]
        depth.axhline(chance, color=GREY, linestyle=(0, (1, 2)))
        depth.annotate("by chance", (0, chance), (0, 4), textcoords="offset points", color=GREY)
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
            axes.set(title=plain(network, 44), xlabel="k", ylabel="ms for one picture")
            axes.set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)


def _mean(runs: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([100 * run["top1"] for run in runs]))


def _drawable(half: float) -> float:
    """A half-width as an error bar; none where it is infinite."""
    return half if np.isfinite(half) else 0.0


def _limits(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """An axis on which differences can be seen: it need not begin at 0."""
    low, high = min(values) - max(errors), max(values) + max(errors)
    margin = max(2.0, 0.35 * (high - low))
    return max(0.0, low - margin), high + margin / 3
