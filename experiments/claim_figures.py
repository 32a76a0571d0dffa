"""Figures of the claims, drawn from the lines of results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from claim import Claim, Variant
from claim_evidence import Evidence, Lines, mean
from claim_networks import FRACTIONS
from claim_statistics import SeedDeviation

from condconv_jax.analysis.figures import COLORS, GREY, LINES, MARKERS, canvas, plain

PLACES = 40  # along the axis of steps


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
    place_of = {variant.name: -index for index, variant in enumerate(shown)}
    values = [(claim.paper[n], p) for n, p in place_of.items() if n in claim.paper]
    values = values if len(values) > 1 else []  # one is not beside anything
    with canvas(path, 8.4, 1.3 + 0.42 * len(shown)) as figure:
        axes = figure.subplots(1, 2 if values else 1, sharey=True, squeeze=False)[0]
        known = [variant for variant in learned if np.isfinite(half[variant.name])]
        means = {v.name: mean(lines[v.name], "top1", 100) for v in learned}
        limits = _limits(list(means.values()), [_drawable(half[name]) for name in means])
        if values:
            # A point is as long here as there.
            theirs = _limits([x for x, _ in values], [0])
            span = max(limits[1] - limits[0], theirs[1] - theirs[0])
            limits, theirs = _of_span(limits, span), _of_span(theirs, span)
        # Not bars, which would have to begin at 0 %, where no difference could be seen.
        if known:
            axes[0].errorbar(
                [means[variant.name] for variant in known],
                [place_of[variant.name] for variant in known],
                xerr=[half[variant.name] for variant in known],
                fmt="s",
                capsize=4,
                elinewidth=2.2,
                color=COLORS[0],
                label="mean and 95 % interval",
            )
        if alone := [variant for variant in learned if variant not in known]:
            axes[0].plot(
                [means[variant.name] for variant in alone],
                [place_of[variant.name] for variant in alone],
                "s",
                color=COLORS[0],
                markerfacecolor="white",
                label="mean, interval not known",
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
        if values:
            axes[1].plot([x for x, _ in values], [y for _, y in values], "D", color=GREY)
            title = f"{claim.published}: ImageNet"
            axes[1].set(title=title, xlabel="top-1 (%)", xlim=theirs)
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
        "static and 2 to 32 experts": (by_experts, COLORS[2], "D", "--"),
    }
    with canvas(path, 7.2, 4.6) as figure:
        axes = figure.subplots()
        for label, (names, color, marker, line) in series.items():
            costs = {name: lines[name][0]["madds"] / 1e6 for name in names if lines.get(name)}
            if len(costs) < 2:  # a point of another series
                continue
            shown = sorted(costs, key=costs.__getitem__)
            errors = [_drawable(half[name]) for name in shown]
            axes.errorbar(
                [costs[name] for name in shown],
                [mean(lines[name], "top1", 100) for name in shown],
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
    percents = (*FRACTIONS, 100)
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
                        pairs[percent] = (
                            mean(found, "top1", 100) - mean(static, "top1", 100),
                            half,
                        )
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


def draw_parting(
    path: Path, steps: Sequence[int], distances: Mapping[str, np.ndarray], logged: int
) -> None:
    """Draws how far training losses are from others: each seed, and their median.

    On a logarithmic axis later rows lie ever closer; a point is the mean of those in its place.

    Args:
      path: of the PNG.
      steps: last step of each row (k,).
      distances: label -> nats by seed and row (n, k).
      logged: steps of one row.
    """
    known = np.asarray(steps, float)
    edges = np.geomspace(known[0], known[-1], PLACES + 1)[1:-1]
    places = [np.flatnonzero(np.digitize(known, edges) == i) for i in range(PLACES)]
    places = [rows for rows in places if len(rows)]
    x = [known[rows].mean() for rows in places]
    with canvas(path, 7.2, 3.9) as figure:
        axes = figure.subplots()
        for color, style, (label, of_seeds) in zip(COLORS, LINES, distances.items(), strict=False):
            # A difference of none has no logarithm; a float32 of a loss has no finer one.
            means = np.stack([of_seeds[:, rows].mean(axis=1) for rows in places], axis=1)
            drawn = np.maximum(means, 1e-7)
            for one in drawn:
                axes.plot(x, one, color=color, linewidth=0.7, alpha=0.4)
            axes.plot(
                x,
                np.median(drawn, axis=0),
                color=color,
                linestyle=style,
                label=plain(label, 40),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set(
            title=f"Training loss, mean of {logged} steps, against that of one convolution",
            xlabel="step",
            ylabel="difference (nats; none is 1e-7)",
        )
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)


def _drawable(half: float) -> float:
    """A half-width as an error bar; none where it is infinite."""
    return half if np.isfinite(half) else 0.0


def _limits(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """An axis on which differences can be seen: it need not begin at 0."""
    low, high = min(values) - max(errors), max(values) + max(errors)
    margin = max(0.5, 0.1 * (high - low))
    return max(0.0, low - margin), high + margin


def _of_span(limits: tuple[float, float], span: float) -> tuple[float, float]:
    """An axis as long as another, about the same middle."""
    middle = sum(limits) / 2
    return middle - span / 2, middle + span / 2
