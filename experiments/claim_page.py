"""The page of a plan's claims, made from lines of results alone."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claim_figures
import claim_mixture
import claim_routing
import claim_tables
import numpy as np
from claim import Claim, Plan
from claim_evidence import Evidence, weigh
from claim_networks import COARSE, DROPPED, EXPERTS, FEWER, STATIC
from claim_results import FIT_IMAGES
from claim_statistics import ALIKE, Observation, verdict_of
from claim_tables import mean, plus_minus
from claims import CLAIMS

HERE = Path(__file__).parent
# In the order of the page; "i" has no variants of its own.
SECTIONS = sorted([claim.key for claim in CLAIMS] + [claim_routing.KEY])
# Networks of claim k that have a figure of their own, or another task.
UNDRAWN = {variant.name for variant in (*FEWER.values(), *DROPPED.values(), *COARSE)}


def write_page(
    out: Path,
    plan: Plan,
    found: Sequence[Mapping[str, Any]],
    *,
    latencies: Mapping[str, Any],
    readings: Mapping[str, str],
    data: str,
) -> None:
    """Writes README.md and figures/.

    Args:
      out: folder of both.
      plan: of the claims and their runs.
      found: lines of results.
      latencies: what claim_latency.py wrote; empty for no figure.
      readings: what people read in them, by letter of the claim, "" for all together.
      data: name of the file of lines.
    """
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    evidence = weigh(plan, found)
    known = {claim.key: claim for claim in plan.claims}
    shown = [key for key in SECTIONS if key == claim_routing.KEY or _is_begun(known[key], evidence)]
    page = [
        *_head(out, plan, found, evidence, data),
        *_reading(readings, ""),
        *_summary(known, evidence, shown),
        *_protocol(evidence),
        *_setting(figures, plan, evidence),
        *_reading(readings, "setting"),
    ]
    for key in shown:
        if key == claim_routing.KEY:
            page += claim_routing.section(figures, plan.variants(), evidence.runs, latencies)
        else:
            page += _claim(figures, known[key], plan, evidence)
        page += _reading(readings, key)
    (out / "README.md").write_text("\n".join(page), encoding="utf-8")


def _is_begun(claim: Claim, evidence: Evidence) -> bool:
    """Whether something can be said of it: a comparison, or of one network by itself."""
    telling = any(
        evidence.dead[variant.name]
        or evidence.failed[variant.name]
        or any("as_one" in run for run in evidence.runs[variant.name])
        for variant in claim.variants
    )
    return telling or any(found.difference is not None for found in evidence.findings[claim.key])


def read_readings(path: Path) -> dict[str, str]:
    """Returns the sections of a Markdown file by their headings, "" for what is before the first.

    Raises:
      ValueError: if a heading is no section of the page.
    """
    sections: dict[str, list[str]] = {"": []}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip()
            if heading not in (*SECTIONS, "setting"):
                raise ValueError(f"{path}: no claim {heading!r}; use one of {', '.join(SECTIONS)}")
            sections[heading] = []
        else:
            sections[list(sections)[-1]].append(line)
    return {key: "\n".join(lines).strip() for key, lines in sections.items()}


def _reading(readings: Mapping[str, str], key: str) -> list[str]:
    return [readings[key], ""] if readings.get(key) else []


def _head(
    out: Path, plan: Plan, found: Sequence[Mapping[str, Any]], evidence: Evidence, data: str
) -> list[str]:
    measured = [line for line in found if "failed" not in line]
    minutes = [line["seconds"] / 60 for line in measured]
    machines = sorted({line["machine"] for line in measured})
    commits = sorted({line["commit"] for line in measured if line["commit"]})
    known = [deviation for deviation in evidence.deviations.values() if deviation.freedom]
    each = " and ".join(f"{d.value:.2f} points ({d.freedom} degrees of freedom)" for d in known)
    said = (
        f"The standard deviation between seeds, pooled over variants"
        f"{' of each data set' if len(known) > 1 else ''}, is {each}; variants with one seed "
        "borrow it."
        if known
        else "No variant has a second seed yet, so nothing is judged."
    )
    expected = sum(map(len, evidence.findings.values()))
    return [
        f"# {plan.title}",
        "",
        "What CondConv's paper (arXiv 1904.04971) and its authors' response claim on ImageNet, "
        "tested for direction and size on CIFAR-100; claim l is on Tiny ImageNet. Made by "
        "`experiments/report.py` from "
        f"[{data}]({data}), which has every run's config, seed, curves, cost and commit; the "
        f"claims and their runs are in [claims.py]({_link(out, HERE / 'claims.py')}), the "
        "protocol in [configs/cifar100/claims.py]"
        f"({_link(out, HERE.parent / 'configs/cifar100/claims.py')}).",
        "",
        f"{len(measured)} runs, {sum(minutes) / 60:.1f} hours of training by the clock, "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes each, on: "
        f"{'; '.join(machines)}. Commits: {', '.join(commits) or 'not recorded'}. {said}",
        "",
        "Intervals are of 95 %, over seeds on one test set; its pictures are a sample as well, and "
        "10,000 others would move an accuracy by about 0.5 points. A difference is confirmed or "
        "contradicted where its whole interval says so; two networks are alike (≈) where it lies "
        f"within {ALIKE:.0f} points. What is said of networks that overfit is not testable where "
        "the larger network does not fit training pictures better and test pictures no better. "
        f"Nothing is corrected for there being {expected} comparisons: of those without a true "
        "difference one in twenty is decided by chance, one way or the other. The last column "
        "judges the same differences on training pictures: what capacity is worth before it has to "
        "generalise.",
        "",
    ]


def _link(out: Path, file: Path) -> str:
    return os.path.relpath(file, out.absolute()).replace(os.sep, "/")


def _summary(known: Mapping[str, Claim], evidence: Evidence, shown: Sequence[str]) -> list[str]:
    page = ["| | claim | verdict here | on training pictures |", "|---|---|---|---|"]
    for key in SECTIONS:
        if key == claim_routing.KEY:
            heading, statement = claim_routing.HEADING, claim_routing.STATEMENT
            verdicts = [finding.verdict for finding in claim_routing.findings(evidence.runs)]
            fits = []
        else:
            heading, statement = _heading(known[key]), known[key].statement
            verdicts = [one.verdict for one in evidence.findings[key]]
            verdicts += [one.verdict for one in _observations(key, evidence)]
            fits = [finding.verdict for finding in evidence.fits[key] if finding]
        letter = f"[{key}](#{_anchor(heading)})" if key in shown else key
        page.append(f"| {letter} | {statement} | {verdict_of(verdicts)} | {verdict_of(fits)} |")
    return [*page, ""]


def _protocol(evidence: Evidence) -> list[str]:
    runs = evidence.runs[STATIC.name]
    if not runs:
        return []
    run, config = runs[0], runs[0]["config"]
    model, data, schedule = config["model"], config["data"], config["schedule"]
    return [
        "## The protocol",
        "",
        f"{model['name']} {model['width']}x with early strides "
        f"{', '.join(map(str, model['early_strides']))}: {run['madds'] / 1e6:.2f} M multiply-adds "
        f"and {run['params'] / 1e3:.0f} thousand parameters, where a claim says nothing else. "
        f"{run['train_images']:,} training pictures of {data['image_size']} pixels, "
        f"{_augmentation(data)}; {config['epochs']:g} epochs at batch "
        f"{config['batch_size']}; {config['optimizer']['name'].upper()} with a rate of "
        f"{schedule['learning_rate']:g} after {schedule['warmup_epochs']:g} epochs of warm-up, "
        f"then {schedule['name']}; weight decay {config['optimizer']['weight_decay']:g}; gradients "
        f"limited at {config['optimizer']['clip_norm']:g}. Top-1 is that of the last step on "
        f"the test pictures; of training pictures that on {FIT_IMAGES}, as they are. Where the "
        f"paper's network has 32 experts, that of most claims here has {EXPERTS}: the paper's "
        "numbers stand beside ours of the same place in a comparison.",
        "",
    ]


def _augmentation(data: Mapping[str, Any]) -> str:
    steps = ["mirrored"] if data["flip"] else []
    if data["padding"]:
        steps.append(f"padded by {data['padding']} and cropped")
    return " and ".join(steps) or "as they are"


def _setting(figures: Path, plan: Plan, evidence: Evidence) -> list[str]:
    lines = evidence.runs
    lengths = [some for some in plan.lengths.values() if all(lines[v.name] for v in some)]
    if len(lengths) < 2:
        return []
    claim_figures.draw_curves(figures / "setting.png", list(zip(*lengths, strict=True)), lines)
    columns = [f"{variant.label}: training loss | top-1" for variant in plan.lengths[1.0]]
    page = [
        "## What more epochs give",
        "",
        f"| epochs | {' | '.join(columns)} | seeds |",
        f"|--:|{'--:|--:|' * len(columns)}---|",
    ]
    for length in lengths:
        of_each = [lines[variant.name] for variant in length]
        cells = [
            f"{mean(runs, 'train_loss'):.3f} | {mean(runs, 'top1', 100):.1f}"
            f"{plus_minus(evidence.half[variant.name])}"
            for variant, runs in zip(length, of_each, strict=True)
        ]
        seeds = ", ".join(str(len(runs)) for runs in of_each)
        page.append(f"| {of_each[0][0]['epochs']:.0f} | {' | '.join(cells)} | {seeds} |")
    return [*page, "", "![Training loss and accuracy by epoch](figures/setting.png)", ""]


def _claim(figures: Path, claim: Claim, plan: Plan, evidence: Evidence) -> list[str]:
    name = f"claim_{claim.key}.png"
    page = [
        f"## {_heading(claim)}",
        "",
        f"{claim.statement} ({claim.source}.) Against it would speak: {claim.refuted}.",
        "",
        *([claim.note, ""] if claim.note else []),
        *claim_tables.networks(claim, evidence),
        *claim_tables.differences(claim, evidence),
        *_power(claim, evidence),
    ]
    if observed := _observations(claim.key, evidence):
        page += [
            "| beside the comparison | here | verdict |",
            "|---|---|---|",
            *(f"| {one.statement} | {one.here} | {one.verdict} |" for one in observed),
            "",
        ]
    drawn = [variant for variant in claim.variants if variant.name not in UNDRAWN]
    if any(evidence.runs[variant.name] for variant in drawn):
        claim_figures.draw_intervals(figures / name, claim, drawn, evidence)
        page += [f"![Accuracy of each network](figures/{name})", ""]
    if claim.key == "a":
        picture = figures / "accuracy_madds.png"
        claim_figures.draw_accuracy_madds(picture, plan.variants(), evidence.runs, evidence.half)
        page += ["![Accuracy against multiply-adds](figures/accuracy_madds.png)", ""]
    if claim.key == "b":
        claim_figures.draw_curves(
            figures / "mixture.png", [[v] for v in claim.variants], evidence.runs
        )
        page += ["![Training curves of both](figures/mixture.png)", ""]
    if claim.key == "k":
        deviation = evidence.deviations[STATIC.data]
        claim_figures.draw_gain_by_data(figures / "gain_by_data.png", evidence.runs, deviation)
        page += ["![Gain over the static network by pictures](figures/gain_by_data.png)", ""]
    return [*page, f"At the paper's scale: `{claim.imagenet}`", ""]


def _observations(key: str, evidence: Evidence) -> list[Observation]:
    return claim_mixture.findings(evidence.runs) if key == claim_mixture.KEY else []


def _power(claim: Claim, evidence: Evidence) -> list[str]:
    """What difference between two of a claim's networks could be told from none."""
    seeds = claim.seeds
    half = evidence.deviations[claim.variants[0].data].half_width(seeds, seeds)
    if not np.isfinite(half):
        return []
    of_each = "one seed" if seeds == 1 else f"{seeds} seeds"
    return [
        f"With {of_each} of each, differences of less than {half:.1f} points of top-1 cannot be "
        "told from none.",
        "",
    ]


def _heading(claim: Claim) -> str:
    return f"{claim.key}. {claim.title}"


def _anchor(heading: str) -> str:
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
