"""Claim i, which is about routing weights and not about the accuracy of several networks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claim_figures
import numpy as np
import scipy.stats
from claim import Variant
from claim_networks import COND
from claim_statistics import Verdict

KEY = "i"
HEADING = "i. Routing is more class-specific in deeper layers, and sparse in the last"
STATEMENT = (
    "Routing is more class-specific in deeper layers; the last layer's weights are bimodal with "
    "many near 0, so that experts can be sparsely activated."
)
LOST = 1.0  # points of top-1 that a quarter of the experts may cost
FORMS = {"top_k": "the largest", "mean_top_k": "the largest deviations from the mean kernel"}

Lines = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class RoutingFinding:
    """What the runs say about one part of the claim.

    Attributes:
      statement: of it.
      here: what was measured, in words.
      verdict: on it: confirmed if all seeds agree, contradicted if none does.
    """

    statement: str
    here: str
    verdict: Verdict


def findings(lines: Lines) -> list[RoutingFinding]:
    """Returns what the runs with the most experts say, each seed by itself."""
    runs = _judged(lines)
    trends = [_trend(run["routing"]) for run in runs]
    last = [list(run["routing"].values())[-1] for run in runs]
    first = [next(iter(run["routing"].values())) for run in runs]
    costs = {
        label: [100 * (run["top1"] - run[form][_quarter(run)]) for run in runs if run[form]]
        for form, label in FORMS.items()
    }
    return [
        RoutingFinding(
            "class specificity rises with depth (rank correlation above 0.5)",
            ", ".join(f"{trend:+.2f}" for trend in trends),
            _agreed([trend > 0.5 for trend in trends]),
        ),
        RoutingFinding(
            "more weights near 0 in the last layer than in the first",
            ", ".join(
                f"{100 * end['near_zero']:.0f} % against {100 * start['near_zero']:.0f} %"
                for end, start in zip(last, first, strict=True)
            ),
            _agreed([e["near_zero"] > s["near_zero"] for e, s in zip(last, first, strict=True)]),
        ),
        RoutingFinding(
            "weights of the last layer are bimodal (more in the outer fifths than in the middle)",
            ", ".join(f"{100 * _outer(end):.0f} % outside" for end in last),
            _agreed([_outer(end) > 2 / 3 for end in last]),
        ),
        *(
            RoutingFinding(
                f"a quarter of the weights, {label}, costs at most {LOST:.0f} point",
                ", ".join(f"{cost:.1f} points lost" for cost in lost),
                _agreed([cost <= LOST for cost in lost]),
            )
            for label, lost in costs.items()
        ),
    ]


def section(
    figures: Path, variants: Mapping[str, Variant], lines: Lines, latencies: Mapping[str, Any]
) -> list[str]:
    """Returns the section, and draws its figures; nothing where no run has experts."""
    runs = _judged(lines)
    if not runs:
        return []
    run = runs[0]
    claim_figures.draw_routing(figures / "routing.png", run)
    layers = run["routing"]
    page = [
        f"## {HEADING}",
        "",
        f"{STATEMENT} (Paper, section 5; response.) Of {', '.join(run['run'] for run in runs)}:",
        "",
        "| | here, by seed | verdict |",
        "|---|---|---|",
        *(f"| {one.statement} | {one.here} | {one.verdict} |" for one in findings(lines)),
        "",
        f"Routing weights of `{run['run']}` on the test pictures, by layer. Class specificity is "
        "the share of their variance that lies between classes; labels shuffled at random would "
        f"give {layers[next(iter(layers))]['chance']:.3f}. Near 0 and near 1: within 0.1. Distinct "
        "experts: the stable rank of the depthwise and of the pointwise ones, 1 where all are "
        "multiples of one.",
        "",
        "| layer | class specificity | spread of class means | mean | near 0 | near 1 | distinct |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    page += [
        f"| {name} | {v['specificity']:.3f} | {v['spread']:.3f} | {v['mean']:.2f} | "
        f"{100 * v['near_zero']:.0f} % | {100 * v['near_one']:.0f} % | {_distinct(run, name)} |"
        for name, v in layers.items()
    ]
    page += [
        "",
        "![Class specificity by depth, and routing weights at three depths](figures/routing.png)",
        "",
    ]
    if any(run["top_k"] for some in lines.values() for run in some):
        claim_figures.draw_top_k(figures / "top_k.png", lines, variants)
        page += [
            "Accuracy with k routing weights of each example, of networks that were trained with "
            "all (`condconv compress` chooses k so); k = 0 is the mean kernel alone, the same for "
            "all pictures:",
            "",
            "![Accuracy against weights kept](figures/top_k.png)",
            "",
        ]
    return [*page, *_latency(figures, latencies)]


def _distinct(run: Mapping[str, Any], layer: str) -> str:
    """Ranks of a layer's experts; none in lines that are older than the measure."""
    ranks = run.get("expert_rank", {})
    return ", ".join(f"{ranks[m]:.1f}" for m in sorted(ranks) if m.split("/")[0] == layer)


def _judged(lines: Lines) -> Sequence[Mapping[str, Any]]:
    """Runs of the network with the most experts that has some."""
    return next((lines[v.name] for v in reversed(COND.values()) if lines.get(v.name)), ())


def _quarter(run: Mapping[str, Any]) -> str:
    experts = len(next(iter(run["routing"].values()))["use"])
    return str(max(1, experts // 4))


def _trend(layers: Mapping[str, Mapping[str, Any]]) -> float:
    """Rank correlation of a layer's depth with its class specificity; 0 if all have the same."""
    values = [layer["specificity"] for layer in layers.values()]
    if len(set(values)) == 1:
        return 0.0
    return float(scipy.stats.spearmanr(range(len(values)), values).statistic)


def _outer(layer: Mapping[str, Any]) -> float:
    """Share in the two outer fifths of the weights that lie there or in the middle fifth.

    Two thirds if weights lie evenly from 0 to 1, more if they are bimodal.
    """
    shares = np.array(layer["histogram"])  # twenty bins
    outer, middle = shares[:4].sum() + shares[16:].sum(), shares[8:12].sum()
    return float(outer / (outer + middle)) if outer + middle else 0.0


def _agreed(seeds: Sequence[bool]) -> Verdict:
    if not seeds:
        return "not tested"
    return "confirmed" if all(seeds) else "undecided" if any(seeds) else "contradicted"


def _latency(figures: Path, latencies: Mapping[str, Any]) -> list[str]:
    if not latencies:
        return []
    claim_figures.draw_latency(figures / "latency.png", latencies["seconds"])
    return [
        "Latency of one picture with k weights of 32, batch norms folded "
        f"(experiments/claim_latency.py; {latencies['machine']}):",
        "",
        "![Latency against weights kept](figures/latency.png)",
        "",
    ]
