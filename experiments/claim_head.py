"""What comes before the claims on their page: how they are judged, and the protocol of the runs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claim_figures
from claim import Plan
from claim_evidence import Evidence, corrected, mean
from claim_networks import EXPERTS, STATIC
from claim_results import FIT_IMAGES
from claim_statistics import ALIKE, EITHER
from claim_tables import compared, plus_minus

from condconv_jax import config as configs

HERE = Path(__file__).parent


def opening(out: Path, plan: Plan, data: str) -> list[str]:
    """Returns the title, and what the page is made of.

    Args:
      out: folder of the page.
      plan: of the claims and their runs.
      data: name of the file of lines.
    """
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
    ]


def rules(plan: Plan, found: Sequence[Mapping[str, Any]], evidence: Evidence) -> list[str]:
    """Returns what the words and numbers of the page mean, and what they rest on.

    Args:
      plan: of the claims and their runs.
      found: lines of results.
      evidence: what they come to.
    """
    measured = [line for line in found if "failed" not in line]
    minutes = [line["seconds"] / 60 for line in measured]
    machines = sorted({line["machine"] for line in measured})
    commits = sorted({line["commit"] for line in measured if line["commit"]})
    known = [deviation for deviation in evidence.deviations.values() if deviation.freedom]
    each = " and ".join(f"{d.value:.2f} points ({d.freedom} degrees of freedom)" for d in known)
    pooled = (
        f"It is by the standard deviation between seeds, pooled over networks"
        f"{' of each data set' if len(known) > 1 else ''}: {each}. One seed alone borrows it, "
        "which is said."
        if known
        else "No network has a second seed yet, so nothing is judged."
    )
    return [
        "## How to read this page",
        "",
        "- **Top-1** is in percent of the test pictures, after the last step. Columns of *training "
        f"pictures* are of {FIT_IMAGES}, evaluated as test pictures are, loss included: what "
        "capacity is worth before it has to generalise. The loss of curves and of the table of "
        "epochs is another, that of each step before it is taken.",
        "- **±** is half of an interval of 95 % over seeds, on one test set; its pictures are a "
        "sample as well, and 10,000 others would move an accuracy by about 0.5 points. "
        f"{pooled}",
        "- A difference is **confirmed** or **contradicted** where its whole interval lies on one "
        "side of 0, and **undecided** where it holds 0. Two networks are **alike** (≈) where it "
        f"lies within {ALIKE:.0f} points of 0.",
        "- Its **size** is *compatible* with the paper's where the interval holds that and not 0, "
        f"*{EITHER}* where it holds both, *smaller* or *larger* where it does not hold the "
        "paper's.",
        "- **Not testable** is what compares a network of which a run died. What is claimed of "
        "networks that overfit is, too, where the network in question does not overfit here: where "
        "it neither fits training pictures significantly better than the other nor knows them all, "
        "or where it is significantly better on test pictures as well.",
        "- **From 7, no classifier** has experts in layers 7 to 14 and one classifier for all "
        "pictures; **drop** drops experts at random in training, **shake** mixes them at random.",
        "",
        f"{len(measured)} runs, {sum(minutes) / 60:.1f} hours of training by the clock, "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes each, on: "
        f"{'; '.join(machines)}. Commits: {', '.join(commits) or 'not recorded'}.",
        "",
        *_multiplicity(plan, evidence),
    ]


def _multiplicity(plan: Plan, evidence: Evidence) -> list[str]:
    """How many differences were looked at, and which of them are left if that is corrected for."""
    made, kept = corrected(evidence)
    if not made:
        return []
    labels = {name: variant.label for name, variant in plan.variants().items()}
    decided = [finding for finding in made if finding.verdict in ("confirmed", "contradicted")]
    remaining = "; ".join(
        f"{compared(finding.expectation, labels)} ({finding.difference:+.1f}, {finding.verdict})"
        for finding in kept
    )
    return [
        f"Of {len(made)} differences on test pictures {len(decided)} are decided, each by itself: "
        "of as many without a true difference one in twenty would be. Runs were added while "
        "results were seen. If all are to be right at 95 % (Holm's method), there "
        f"{'remain: ' + remaining if kept else 'remains none'}.",
        "",
    ]


def _link(out: Path, file: Path) -> str:
    return os.path.relpath(file, out.absolute()).replace(os.sep, "/")


def protocol(evidence: Evidence) -> list[str]:
    """Returns what all runs have in common; nothing before the static network has run."""
    runs = evidence.runs[STATIC.name]
    if not runs:
        return []
    run = runs[0]
    config = configs.completed(run["config"])  # lines may be older than a setting
    model, data, schedule = config["model"], config["data"], config["schedule"]
    return [
        "## The protocol",
        "",
        f"{model['name']} {model['width']}x with early strides "
        f"{', '.join(map(str, model['early_strides']))}: {run['madds'] / 1e6:.2f} M multiply-adds "
        f"and {run['params'] / 1e3:.0f} thousand parameters, where a claim says nothing else. "
        f"{run['train_images']:,} training pictures of {data['image_size']} pixels, "
        f"{_augmentation(data)}; {config['epochs']:g} epochs at batch "
        f"{config['batch_size']}; {_optimizer(config['optimizer'])}, a rate of "
        f"{schedule['learning_rate']:g} after {schedule['warmup_epochs']:g} epochs of warm-up, "
        f"then {schedule['name']}{_batch_norm(model)}. Top-1 is that of the last step on "
        f"the test pictures; of training pictures that on {FIT_IMAGES}, as they are. There are no "
        "validation pictures: what was chosen by results was chosen by those on the test pictures. "
        "Where the "
        f"paper's network has 32 experts, that of most claims here has {EXPERTS}: the paper's "
        "numbers stand beside ours of the same place in a comparison.",
        "",
    ]


def _optimizer(optimizer: Mapping[str, Any]) -> str:
    nesterov = "Nesterov's " if optimizer["nesterov"] else ""
    decayed = "kernels" if optimizer["decay"] == "kernels" else "all weights"
    return (
        f"{optimizer['name'].upper()} with {nesterov}momentum {optimizer['momentum']:g}, weight "
        f"decay {optimizer['weight_decay']:g} of {decayed}, gradients limited at "
        f"{optimizer['clip_norm']:g}"
    )


def _batch_norm(model: Mapping[str, Any]) -> str:
    """What is said of an initialisation that is not the usual one."""
    bias = model["batch_norm_bias"]
    return f"; biases of batch norms are {bias:g} at first, not 0" if bias else ""


def _augmentation(data: Mapping[str, Any]) -> str:
    steps = ["mirrored"] if data["flip"] else []
    if data["padding"]:
        steps.append(f"padded by {data['padding']} and cropped")
    return " and ".join(steps) or "as they are"


def setting(figures: Path, plan: Plan, evidence: Evidence) -> list[str]:
    """Returns what longer training gives, and draws it; nothing for fewer than two lengths."""
    lines = evidence.runs
    lengths = [some for some in plan.lengths.values() if all(lines[v.name] for v in some)]
    if len(lengths) < 2:
        return []
    # The protocol's own first, whose lines are solid.
    drawn = sorted(lengths, key=lambda length: length != plan.lengths[1.0])
    claim_figures.draw_curves(figures / "setting.png", list(zip(*drawn, strict=True)), lines)
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
