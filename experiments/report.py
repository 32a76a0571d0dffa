"""The claims of the paper against the runs: a page, its figures, and the results they rest on.

    python experiments/report.py --runs=runs/claims --data=data/cifar100
    python experiments/report.py

With `--runs`, every finished run there that has no line in experiments/results/claims.jsonl yet is
evaluated and gets one. The page and the figures are made from the lines alone.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claim_figures
import claim_latency
import numpy as np
import one_run
from claim import Claim
from claim_results import read_results, result_of, write_results
from claim_statistics import ALIKE, Finding, Spread, judge, pooled_spread, verdict_of
from claims import CLAIMS, LONG, SHORT, variants

RESULTS = Path(__file__).parent / "results"
LINES = "claims.jsonl"
Lines = Mapping[str, Sequence[Mapping[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Adds what is new and writes everything; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, metavar="DIR", help="work directory of the launcher")
    parser.add_argument("--data", metavar="DIR", help="where the pictures are, if not as trained")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="of the page")
    parsed = parser.parse_args(arguments)
    file = parsed.out / LINES
    found = read_results(file)
    if parsed.runs:
        try:
            found = _add_new(parsed.runs, found, parsed.data, file)
        except (FileNotFoundError, ValueError) as error:
            print(f"report.py: {error}", file=sys.stderr)
            return 1
    if not found:
        print(f"report.py: no line in {file}; pass --runs=DIR with finished runs", file=sys.stderr)
        return 1
    latency = parsed.out / claim_latency.FILE.name
    latencies = json.loads(latency.read_text(encoding="utf-8")) if latency.exists() else {}
    write_page(parsed.out, found, latencies)
    print(f"written: {parsed.out / 'README.md'}")
    return 0


def _add_new(
    runs: Path, found: Sequence[dict[str, Any]], data: str | None, file: Path
) -> list[dict[str, Any]]:
    """Returns the lines with those of newly finished runs, each written as soon as it is there."""
    found, known = list(found), {line["run"] for line in found}
    overrides = [f"--config.data.path={data}"] if data else []
    named = {
        variant.run(seed).name: name for name, variant in variants().items() for seed in range(9)
    }
    for path in sorted(runs.iterdir()):
        if path.name not in named or path.name in known:
            continue
        if one_run.read_record(path).state == one_run.FINISHED:
            print(f"evaluating {path.name}", flush=True)
            found.append(result_of(path, named[path.name], overrides))
            write_results(file, found)
    return found


def write_page(out: Path, found: Sequence[Mapping[str, Any]], latencies: Mapping[str, Any]) -> None:
    """Writes README.md and figures/ from lines of results, and what claim_latency.py wrote."""
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    known = variants()
    lines: dict[str, list[Mapping[str, Any]]] = {name: [] for name in known}
    for line in sorted(found, key=lambda line: line["seed"]):
        lines.setdefault(line["variant"], []).append(line)
    values = {
        "top1": {name: [100 * run["top1"] for run in runs] for name, runs in lines.items()},
        "train_loss": {name: [run["train_loss"] for run in runs] for name, runs in lines.items()},
    }
    spreads = {measure: pooled_spread(found) for measure, found in values.items()}
    spread = spreads["top1"]
    half = {name: spread.half_width(len(runs)) for name, runs in lines.items() if runs}
    findings = {
        claim.key: [
            judge(wanted, values[wanted.measure], spreads[wanted.measure])
            for wanted in claim.expectations
        ]
        for claim in CLAIMS
    }
    page = [*_head(found, spread), *_summary(findings), *_setting(figures, lines)]
    for claim in CLAIMS:
        if any(lines.get(variant.name) for variant in claim.variants):
            page += _claim(figures, claim, findings[claim.key], lines, half)
        if claim.key == "a":
            claim_figures.draw_accuracy_madds(figures / "accuracy_madds.png", known, lines, half)
            page += ["![Accuracy against multiply-adds](figures/accuracy_madds.png)", ""]
    page += _routing(figures, lines, latencies)
    (out / "README.md").write_text("\n".join(page), encoding="utf-8")


def _head(found: Sequence[Mapping[str, Any]], spread: Spread) -> list[str]:
    hours = sum(line["seconds"] for line in found) / 3600
    machines = sorted({line["machine"] for line in found})
    commits = sorted({line["commit"] for line in found if line["commit"]})
    deviation = (
        f"The standard deviation between seeds, pooled over variants, is {spread.deviation:.2f} "
        f"points ({spread.freedom} degrees of freedom)."
        if spread.freedom
        else "No variant has a second seed yet, so nothing is judged."
    )
    return [
        "# The paper's claims on CIFAR-100",
        "",
        "What CondConv's paper (arXiv 1904.04971) and its authors' response claim on ImageNet, "
        "tested for direction and size on CIFAR-100. Made by `experiments/report.py` from "
        f"[{LINES}]({LINES}), which has every run's config, seed, curves, cost and commit; the "
        "claims and their runs are in [claims.py](../claims.py), the protocol in "
        "[configs/cifar100/claims.py](../../configs/cifar100/claims.py).",
        "",
        f"{len(found)} runs, {hours:.1f} hours of training in all, on: "
        f"{'; '.join(machines)}. Commits: {', '.join(commits) or 'not recorded'}. "
        f"{deviation} Intervals are of 95 %. A difference is confirmed or contradicted where "
        f"its whole interval says so; two networks are alike where it lies within {ALIKE:.0f} "
        "point.",
        "",
    ]


def _summary(findings: Mapping[str, Sequence[Finding]]) -> list[str]:
    page = ["| | claim | verdict here |", "|---|---|---|"]
    for claim in CLAIMS:
        verdict = verdict_of(findings[claim.key])
        page.append(f"| [{claim.key}](#{_anchor(claim)}) | {claim.statement} | {verdict} |")
    return [*page, ""]


def _setting(figures: Path, lines: Lines) -> list[str]:
    pairs = [(lines[short.name], lines[long.name]) for short, long in zip(SHORT, LONG, strict=True)]
    if not all(short and long for short, long in pairs):
        return []
    claim_figures.draw_curves(figures / "setting.png", (*SHORT, *LONG), lines)
    page = [
        "## The setting",
        "",
        "What the protocol's epochs leave to be learned: the first seed of each network, and twice "
        "as long.",
        "",
        "| network | epochs | training loss | top-1 | epochs | training loss | top-1 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for variant, pair in zip(SHORT, pairs, strict=True):
        cells = [
            f"{run['epochs']:.0f} | {run['train_loss']:.3f} | {100 * run['top1']:.1f} %"
            for run in (runs[0] for runs in pair)
        ]
        page.append(f"| {variant.label} | {' | '.join(cells)} |")
    return [*page, "", "![Training loss and accuracy by epoch](figures/setting.png)", ""]


def _claim(
    figures: Path,
    claim: Claim,
    findings: Sequence[Finding],
    lines: Lines,
    half: Mapping[str, float],
) -> list[str]:
    name = f"claim_{claim.key}.png"
    claim_figures.draw_intervals(figures / name, claim, lines, half)
    page = [
        f"## {_heading(claim)}",
        "",
        f"{claim.statement} ({claim.source}.) Against it would speak: {claim.refuted}.",
        "",
        "| network | top-1, paper | top-1 here | seeds | training loss | MADDs (M) | params (M) |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for variant in claim.variants:
        runs = lines[variant.name]
        paper = f"{claim.paper[variant.name]:.1f}" if variant.name in claim.paper else ""
        if not runs:
            page.append(f"| {variant.label} | {paper} | not run yet | 0 | | | |")
            continue
        top1 = (
            f"{np.mean([100 * run['top1'] for run in runs]):.1f}{_plus_minus(half[variant.name])}"
        )
        loss = f"{np.mean([run['train_loss'] for run in runs]):.3f}"
        cost = f"{runs[0]['madds'] / 1e6:.2f} | {runs[0]['params'] / 1e6:.2f}"
        page.append(f"| {variant.label} | {paper} | {top1} | {len(runs)} | {loss} | {cost} |")
    page += ["", "| difference | paper | here | verdict |", "|---|--:|--:|---|"]
    labels = {variant.name: variant.label for variant in claim.variants}
    for finding in findings:
        wanted = finding.expectation
        sign = "alike" if wanted.relation == "alike" else ">"
        digits, unit = (1, "points") if wanted.measure == "top1" else (3, "nats")
        paper = "" if wanted.paper is None else f"{wanted.paper:+.1f}"
        here = ""
        if finding.difference is not None:
            half_width = _plus_minus(finding.half_width, digits)
            here = f"{finding.difference:+.{digits}f}{half_width} {unit}"
        of, than = labels[wanted.of], labels[wanted.than]
        compared = f"{of} {sign} {than}" + ("" if digits == 1 else ", training loss")
        page.append(f"| {compared} | {paper} | {here} | {finding.verdict} |")
    return [
        *page,
        "",
        f"![Accuracy of each network]({'figures/' + name})",
        "",
        f"At the paper's scale: `{claim.imagenet}`",
        "",
    ]


def _routing(figures: Path, lines: Lines, latencies: Mapping[str, Any]) -> list[str]:
    """Claim i, which is about routing weights and not about accuracies."""
    runs = [run for name in ("experts32", "experts16", "experts8") for run in lines.get(name, ())]
    if not runs:
        return []
    run = runs[0]
    claim_figures.draw_routing(figures / "routing.png", run)
    claim_figures.draw_top_k(figures / "top_k.png", lines, variants())
    layers = run["routing"]
    page = [
        "## i. Routing is more class-specific in deeper layers, and sparse in the last",
        "",
        f"Routing weights of `{run['run']}` on the test pictures, by layer. Class specificity is "
        "the share of their variance that lies between classes; labels shuffled at random would "
        f"give {layers[next(iter(layers))]['chance']:.3f}. Near 0 and near 1: within 0.1. (Paper, "
        "section 5; response: many weights of the last layer are close to 0.)",
        "",
        "| layer | class specificity | spread of class means | mean | near 0 | near 1 |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    page += [
        f"| {name} | {v['specificity']:.3f} | {v['spread']:.3f} | {v['mean']:.2f} | "
        f"{100 * v['near_zero']:.0f} % | {100 * v['near_one']:.0f} % |"
        for name, v in layers.items()
    ]
    return [
        *page,
        "",
        "![Class specificity by depth, and routing weights at three depths](figures/routing.png)",
        "",
        "Accuracy with k routing weights of each example, of networks that were trained with all "
        "(`condconv compress` chooses k so):",
        "",
        "![Accuracy against weights kept](figures/top_k.png)",
        "",
        *_latency(figures, latencies),
    ]


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


def _heading(claim: Claim) -> str:
    return f"{claim.key}. {claim.title}"


def _anchor(claim: Claim) -> str:
    kept = "".join(c for c in _heading(claim).lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def _plus_minus(half: float, digits: int = 1) -> str:
    return f" ± {half:.{digits}f}" if np.isfinite(half) else ""


if __name__ == "__main__":
    sys.exit(main())
