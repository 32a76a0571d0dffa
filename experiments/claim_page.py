"""The page of a plan's claims, made from lines of results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claim_figures
import claim_first_steps
import claim_head
import claim_mixture
import claim_routing
import claim_tables
from claim import Claim, Plan
from claim_evidence import Evidence, weigh
from claim_networks import COARSE, DROPPED, FEWER, FRACTIONS, STATIC
from claim_statistics import POWER, Observation, sizes_of, verdict_of
from claims import CLAIMS

# In the order of the page; "i" has no variants of its own.
SECTIONS = sorted([claim.key for claim in CLAIMS] + [claim_routing.KEY])
# Networks of claim k that have a figure of their own, or another task.
UNDRAWN = {variant.name for variant in (*FEWER.values(), *DROPPED.values(), *COARSE)}


def write_page(
    out: Path,
    plan: Plan,
    found: Sequence[Mapping[str, Any]],
    *,
    measured: Mapping[str, Mapping[str, Any]],
    readings: Mapping[str, str],
    data: str,
) -> None:
    """Writes README.md and figures/.

    Args:
      out: folder of both.
      plan: of the claims and their runs.
      found: lines of results.
      measured: what claim_latency.py, claim_first_steps.py and claim_classes.py wrote, by name of
        the file without its ending; nothing is said of what is missing.
      readings: what people read in them, by letter of the claim, "" for all together.
      data: name of the file of lines.
    """
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    evidence = weigh(plan, found)
    known = {claim.key: claim for claim in plan.claims}
    first_steps = measured.get(claim_first_steps.FILE.stem, {})
    # What the runs say beside the comparisons of accuracies.
    beside = {claim_mixture.KEY: claim_mixture.findings(evidence.runs, first_steps)}
    shown = [key for key in SECTIONS if key == claim_routing.KEY or _is_begun(known[key], evidence)]
    page = [
        *claim_head.opening(out, plan, data),
        *_reading(readings, ""),
        *_summary(known, evidence, shown, beside),
        *claim_head.rules(plan, found, evidence),
        *claim_head.protocol(evidence),
        *claim_head.setting(figures, plan, evidence),
        *_reading(readings, "setting"),
    ]
    for key in shown:
        if key == claim_routing.KEY:
            page += claim_routing.section(figures, plan.variants(), evidence.runs, measured)
        else:
            page += _claim(figures, known[key], plan, evidence, beside.get(key, ()))
            if key == claim_mixture.KEY:
                page += _parting(figures, first_steps)
            command = f"{known[key].imagenet} --config.data.path=DATA_DIR --workdir=DIR"
            page += [f"At the paper's scale: `{command}`", ""]
        page += _reading(readings, key)
    text = "\n".join(page)
    for drawn in figures.glob("*.png"):
        if f"figures/{drawn.name}" not in text:  # of a page before
            drawn.unlink()
    (out / "README.md").write_text(text, encoding="utf-8")


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


def _summary(
    known: Mapping[str, Claim],
    evidence: Evidence,
    shown: Sequence[str],
    beside: Mapping[str, Sequence[Observation]],
) -> list[str]:
    page = [
        "| | claim | here | size, beside the paper's | on training pictures |",
        "|---|---|---|---|---|",
    ]
    for key in SECTIONS:
        if key == claim_routing.KEY:
            heading, statement = claim_routing.HEADING, claim_routing.STATEMENT
            verdicts = [one.said for one in claim_routing.findings(evidence.runs)]
            sizes, fits = "", []
        else:
            heading, statement = _heading(known[key]), known[key].statement
            verdicts = [one.said for one in (*evidence.findings[key], *beside.get(key, ()))]
            sizes = sizes_of(evidence.findings[key])
            fits = [finding.said for finding in evidence.fits[key] if finding]
        letter = f"[{key}](#{_anchor(heading)})" if key in shown else key
        here = f"{verdict_of(verdicts)} | {sizes} | {verdict_of(fits)}"
        page.append(f"| {letter} | {statement} | {here} |")
    return [*page, ""]


def _claim(
    figures: Path,
    claim: Claim,
    plan: Plan,
    evidence: Evidence,
    observed: Sequence[Observation],
) -> list[str]:
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
    if observed:
        page += [
            "| beside the comparison | here | verdict |",
            "|---|---|---|",
            *(f"| {one.statement} | {one.here} | {one.said} |" for one in observed),
            "",
        ]
    drawn = [variant for variant in claim.variants if variant.name not in UNDRAWN]
    if any(evidence.runs[variant.name] for variant in drawn):
        claim_figures.draw_intervals(figures / name, claim, drawn, evidence)
        which = "each network" if drawn == [*claim.variants] else "networks on all pictures"
        page += [f"![Accuracy of {which}](figures/{name})", ""]
    if claim.key == "a":
        picture = figures / "accuracy_madds.png"
        claim_figures.draw_accuracy_madds(picture, plan.variants(), evidence.runs, evidence.half)
        page += ["![Accuracy against multiply-adds](figures/accuracy_madds.png)", ""]
    if claim.key == "b":
        claim_figures.draw_curves(
            figures / "mixture.png", [[v] for v in claim.variants], evidence.runs
        )
        page += ["![Training curves of both](figures/mixture.png)", ""]
    # A gain by a part of the pictures is over the static network of that part.
    if claim.key == "k" and any(evidence.runs[FEWER[percent, 0].name] for percent in FRACTIONS):
        deviation = evidence.deviations[STATIC.data]
        claim_figures.draw_gain_by_data(figures / "gain_by_data.png", evidence.runs, deviation)
        page += ["![Gain over the static network by pictures](figures/gain_by_data.png)", ""]
    return page


def _parting(figures: Path, first_steps: Mapping[str, Any]) -> list[str]:
    """How a mixture and one convolution part, step by step."""
    if not first_steps:
        return []
    of_methods = {
        "two programs of one convolution": claim_first_steps.OTHER,
        "8 convolutions and one": claim_first_steps.MIXTURE,
    }
    claim_figures.draw_parting(
        figures / "parting.png",
        first_steps["step"],
        {label: claim_mixture.apart(first_steps, m) for label, m in of_methods.items()},
        claim_first_steps.STEPS,
    )
    return [
        "The first epochs step by step (experiments/claim_first_steps.py; "
        f"{'; '.join(first_steps['machines'])}):",
        "",
        "![How far training losses part](figures/parting.png)",
        "",
    ]


def _power(claim: Claim, evidence: Evidence) -> list[str]:
    """What true differences between a claim's networks would be found, and which that are none."""
    deviation = evidence.deviations[claim.variants[0].data]
    if not deviation.freedom:
        return []
    seeds: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for found in evidence.findings[claim.key]:
        wanted = found.expectation
        if wanted.measure == "top1" and found.difference is not None:
            counts = sorted(len(evidence.runs[name]) for name in wanted.names)
            seeds[wanted.relation == "alike"].add(tuple(counts))
    said = []
    if seeds[False]:
        sizes = ", ".join(
            f"{deviation.detectable(*counts):.1f} with {_listed(counts)} seeds"
            for counts in sorted(seeds[False], key=lambda counts: deviation.detectable(*counts))
        )
        said.append(
            f"A true difference is found in {100 * POWER:.0f} % of such experiments if "
            f"it is of as many points of top-1: {sizes}."
        )
    if seeds[True]:
        shares = ", ".join(
            f"{100 * deviation.found_alike(*counts):.0f} % with {_listed(counts)} seeds"
            for counts in sorted(seeds[True])
        )
        said.append(f"Two equal networks are found alike in {shares}.")
    return [" ".join(said), ""] if said else []


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts[:-1])) + f" and {counts[-1]}"


def _heading(claim: Claim) -> str:
    return f"{claim.key}. {claim.title}"


def _anchor(heading: str) -> str:
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
