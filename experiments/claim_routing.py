"""Claim i, which is about routing weights and not about the accuracy of several networks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claim_classes
import claim_latency
import claim_routing_figures as figures_of
import numpy as np
import scipy.stats
from claim import Variant
from claim_evidence import Lines
from claim_networks import COND
from claim_statistics import Observation, Verdict, agreed, mean_interval

from condconv_jax import analysis
from condconv_jax.analysis.routing_figures import draw_class_means

Measured = Mapping[str, Mapping[str, Any]]  # name of a measurement -> what it found

KEY = "i"
HEADING = "i. Routing is more class-specific in deeper layers, and sparse in the last"
STATEMENT = (
    "Routing is more class-specific in deeper layers; the last layer's weights are bimodal with "
    "many near 0, so that experts can be sparsely activated."
)
# In words: what is to rise with depth.
MEASURES = {"class specificity": "specificity", "spread of class means": "spread"}
SHOWN = 8  # experts that have a row
TREND = 0.5  # rank correlation with depth from which something rises, and not by a layer or two
LOST = 1.0  # points of top-1 that a quarter of the experts may cost
FORMS = {
    "last_top_k": "the largest, in the last layer",
    "mean_top_k": "in every layer, the largest deviations from the mean kernel",
}


def findings(lines: Lines) -> list[Observation]:
    """Returns what the runs say: all with experts, or where it says so those with the most."""
    runs, all_runs = _judged(lines), _with_experts(lines)
    last = [_layers(run)[-1] for run in runs]
    first = [_layers(run)[0] for run in runs]
    return [
        *(
            _over_runs(
                f"{what} rises with depth: rank correlation above {TREND:g} (2 to 32 experts)",
                [_trend(run["routing"], measure) for run in all_runs],
                TREND,
                digits=2,
            )
            for what, measure in MEASURES.items()
        ),
        Observation(
            "more weights near 0 in the classifier than in the first layer (most experts)",
            ", ".join(
                f"{100 * end['near_zero']:.0f} % against {100 * start['near_zero']:.0f} %"
                for end, start in zip(last, first, strict=True)
            ),
            agreed([e["near_zero"] > s["near_zero"] for e, s in zip(last, first, strict=True)]),
            len(runs),
        ),
        _bimodal(lines),
        *(_costs(lines, form) for form in FORMS),
    ]


def _over_runs(
    statement: str, values: Sequence[float], limit: float, *, digits: int
) -> Observation:
    """Of something that each run has one of, and that is to be above a limit."""
    if not values:
        return Observation(statement, "", "not tested")
    mean, half = mean_interval(values)
    verdict: Verdict = "undecided"
    if mean - half > limit:
        verdict = "confirmed"
    elif mean + half <= limit:
        verdict = "contradicted"
    interval = f" ± {half:.{digits}f}" if np.isfinite(half) else ""
    found = f"{len(values)} runs, {min(values):+.{digits}f} to {max(values):+.{digits}f}"
    return Observation(statement, f"{mean:+.{digits}f}{interval} ({found})", verdict, len(values))


def _bimodal(lines: Lines) -> Observation:
    """Of the networks with the most experts; peaks of others are not a sample of the same."""
    found = {
        variant.label: [_lesser_peak(_layers(run)[-1]) for run in lines.get(variant.name, ())]
        for variant in COND.values()
    }
    *others, (most, judged_by) = [(k, v) for k, v in found.items() if v] or [("", [])]
    judged = _over_runs(
        "weights of the last layer are bimodal: the percent in the lesser of the outer fifths, "
        f"less that in the middle one, is above 0 ({most or 'most experts'})",
        judged_by,
        0.0,
        digits=1,
    )
    fewer = ", ".join(f"{np.mean(peaks):+.1f} with {label}" for label, peaks in others)
    return dataclasses.replace(judged, here=f"{judged.here}; {fewer}" if fewer else judged.here)


def _costs(lines: Lines, form: str) -> Observation:
    """Of what a quarter of the routing weights costs in each network that was asked."""
    asked = {
        run["run"]: 100 * (run["top1"] - run[form][_quarter(run)])
        for run in _with_experts(lines)
        if run.get(form) and _quarter(run) in run[form]
    }
    return Observation(
        f"a quarter of the weights, {FORMS[form]}, costs at most {LOST:.0f} point",
        ", ".join(f"{points:.1f} ({name})" for name, points in asked.items()),
        agreed([points <= LOST for points in asked.values()]),
        len(asked),
    )


def section(
    figures: Path, variants: Mapping[str, Variant], lines: Lines, measured: Measured
) -> list[str]:
    """Returns the section, and draws its figures; nothing where no run has experts.

    Args:
      figures: folder of the figures.
      variants: all, by name.
      lines: runs by variant.
      measured: beside the runs, by name; see `claim_page.write_page`.
    """
    runs = _judged(lines)
    if not runs:
        return []
    run = max(runs, key=lambda one: "expert_rank" in one)  # the first that was asked for all
    figures_of.draw_routing(figures / "routing.png", run)
    layers = run["routing"]
    page = [
        f"## {HEADING}",
        "",
        f"{STATEMENT} (Paper, section 5; response.) Of {', '.join(run['run'] for run in runs)}:",
        "",
        "| | here, by seed | verdict |",
        "|---|---|---|",
        *(f"| {one.statement} | {one.here} | {one.said} |" for one in findings(lines)),
        "",
        f"Routing weights of `{run['run']}` on the test pictures, by layer. Class specificity is "
        "the share of their variance that lies between classes; labels shuffled at random would "
        f"give {layers[next(iter(layers))]['chance']:.3f}. Near 0 and near 1: within 0.1. In use: "
        "how many experts share the mean weight, effectively (the perplexity of their shares). Of "
        "the experts, depthwise and pointwise ones: the spread, how far they lie from their mean "
        "over the size of that, 0 where all are equal; and the stable rank, 1 where all are "
        "multiples of one.",
        "",
        "| layer | class specificity | spread of class means | mean | near 0 | near 1 | in use | "
        "experts: spread | rank |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, values in layers.items():
        spread = _of_experts(run, name, "expert_spread", 2)
        rank = _of_experts(run, name, "expert_rank", 1)
        page.append(
            f"| {name} | {values['specificity']:.3f} | {values['spread']:.3f} | "
            f"{values['mean']:.2f} | {100 * values['near_zero']:.0f} % | "
            f"{100 * values['near_one']:.0f} % | {_in_use(values['use']):.1f} | {spread} | {rank} |"
        )
    page += [
        "",
        "The share says how well weights tell classes apart for as much as they vary, the spread "
        "(a standard deviation) how much class means do. Weights of all experts are drawn "
        "together: where that spread is small, peaks are experts whose weight is nearly the same "
        "for all pictures.",
        "",
        "![Class specificity by depth, and routing weights at three depths](figures/routing.png)",
        "",
    ]
    page += _without_routing(lines, variants)
    if any(run["mean_top_k"] for some in lines.values() for run in some):
        figures_of.draw_top_k(figures / "top_k.png", lines, variants)
        page += [
            "Accuracy with k routing weights of each example, of networks that were trained with "
            "all (`condconv compress` chooses k so), the first seed of each beside the mean of the "
            "static networks; k = 0 is the mean kernel alone, the same for "
            "all pictures. The largest weights are kept in the last layer alone: in layers before "
            "it kernels would shrink, and batch norms would have the statistics of all weights.",
            "",
            "![Accuracy against weights kept](figures/top_k.png)",
            "",
        ]
    return [
        *page,
        *_latency(figures, measured.get(claim_latency.FILE.stem, {})),
        *_classes(figures, measured.get(claim_classes.FILE.stem, {})),
    ]


def _without_routing(lines: Lines, variants: Mapping[str, Variant]) -> list[str]:
    """A table of what routing by the picture is worth, in convolutions and in the classifier."""
    shown = [v for v in COND.values() if any(r.get("mean_routing") for r in lines[v.name])]
    if not shown:
        return []
    rows = []
    for variant in shown:
        run = lines[variant.name][0]
        fixed = run["mean_routing"]
        cells = (run["top1"], fixed["convolutions"], fixed["classifier"], run["mean_top_k"]["0"])
        label = variants[variant.name].label
        rows.append(f"| {label} | {' | '.join(f'{100 * value:.1f}' for value in cells)} |")
    return [
        "What routing by the picture is worth: top-1 with routing weights at their means, the same "
        "for all pictures, one seed of each.",
        "",
        "| network | routed | convolutions at their means | classifier at its means | all |",
        "|---|--:|--:|--:|--:|",
        *rows,
        "",
    ]


def _of_experts(run: Mapping[str, Any], layer: str, measure: str, digits: int) -> str:
    """A measure of each kernel of a layer; none in lines that are older than the measure."""
    known = run.get(measure, {})
    found = (known[module] for module in sorted(known) if module.split("/")[0] == layer)
    return ", ".join(f"{value:.{digits}f}" for value in found)


def _in_use(use: Sequence[float]) -> float:
    """Experts that share the mean weight, effectively, by the mean weight of each."""
    return analysis.effective_experts(np.array([use]))


def _judged(lines: Lines) -> Sequence[Mapping[str, Any]]:
    """Runs of the network with the most experts that has some."""
    return next((lines[v.name] for v in reversed(COND.values()) if lines.get(v.name)), ())


def _with_experts(lines: Lines) -> Sequence[Mapping[str, Any]]:
    """Runs of all networks that differ by their number of experts alone."""
    return [run for variant in COND.values() for run in lines.get(variant.name, ())]


def _quarter(run: Mapping[str, Any]) -> str:
    return str(len(_layers(run)[0]["use"]) // 4)


def _layers(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is known of routing in each layer, in the order of the forward pass."""
    return list(run["routing"].values())


def _trend(layers: Mapping[str, Mapping[str, Any]], measure: str) -> float:
    """Rank correlation of a layer's depth with a measure of it; 0 if all have the same."""
    values = [layer[measure] for layer in layers.values()]
    if len(set(values)) == 1:
        return 0.0
    return float(scipy.stats.spearmanr(range(len(values)), values).statistic)


def _lesser_peak(layer: Mapping[str, Any]) -> float:
    """Percent of the weights in the lesser of the outer fifths of 0 to 1, less the middle one's."""
    shares = 100 * np.array(layer["histogram"])  # twenty bins
    return float(min(shares[:4].sum(), shares[16:].sum()) - shares[8:12].sum())


def _latency(figures: Path, latencies: Mapping[str, Any]) -> list[str]:
    if not latencies:
        return []
    figures_of.draw_latency(figures / "latency.png", latencies["seconds"])
    return [
        "Latency of one picture with k weights of 32, batch norms folded "
        f"(experiments/claim_latency.py; {latencies['machine']}):",
        "",
        "![Latency against weights kept](figures/latency.png)",
        "",
    ]


def _classes(figures: Path, found: Mapping[str, Any]) -> list[str]:
    """Which classes the experts of one network are for, and what each is worth."""
    if not found:
        return []
    draw_class_means(
        figures / "classes.png",
        {layer: np.array(means) for layer, means in found["means"].items()},
        found["classes"],
        (0.0, 1.0),
    )
    lost = {
        layer: 100 * (found["top1"] - np.array(without))
        for layer, without in found["without"].items()
    }
    last = list(lost)[-1]
    ranges = " and ".join(
        f"{layer} from {of.min():+.1f} to {of.max():+.1f}" for layer, of in lost.items()
    )
    return [
        f"How `{found['run']}` routes classes (experiments/claim_classes.py): mean weights of the "
        f"{len(found['classes'])} classes that its last layer routes most unlike the average.",
        "",
        "![Mean routing weight by class and expert at three depths](figures/classes.png)",
        "",
        f"Without one of its experts it loses points of top-1: of {ranges}, on {found['images']:,} "
        f"test pictures. Those of {last} that it misses most:",
        "",
        "| expert | classes that weigh it most | points lost without it |",
        "|--:|---|--:|",
        *(
            f"| {expert} | {', '.join(found['liked'][expert])} | {lost[last][expert]:.1f} |"
            for expert in np.argsort(-lost[last], kind="stable")[:SHOWN].tolist()
        ),
        "",
    ]
