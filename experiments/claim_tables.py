"""Tables of a claim: its networks, and the differences that it expects between them."""

from collections.abc import Mapping, Sequence

import numpy as np
from claim import Claim, Expectation, Variant
from claim_evidence import Evidence, mean
from claim_networks import STATIC
from claim_statistics import Finding


def networks(claim: Claim, evidence: Evidence) -> list[str]:
    """Returns a row for each network that was run, and the names of the others."""
    labels = {variant.name: variant.label for variant in claim.variants}
    kinds = (evidence.runs, evidence.dead, evidence.failed)
    begun = [v for v in claim.variants if any(kind[v.name] for kind in kinds)]
    reference = labels.get(claim.reference, STATIC.label)
    return [
        "| network | top-1, paper | top-1 here | seeds | training pictures: top-1 | loss | "
        f"MADDs (M) | MADDs / {reference} | params (M) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_row(claim, variant, evidence) for variant in begun),
        "",
        *_to_be_run(claim, begun),
    ]


def differences(claim: Claim, evidence: Evidence) -> list[str]:
    """Returns a row for each expectation."""
    labels = {variant.name: variant.label for variant in claim.variants}
    both = zip(evidence.findings[claim.key], evidence.fits[claim.key], strict=True)
    return [
        "| difference | paper | here | direction | size | on training pictures | direction |",
        "|---|--:|--:|---|---|--:|---|",
        *(_judgement(finding, fit, labels) for finding, fit in both),
        "",
    ]


def _to_be_run(claim: Claim, begun: Sequence[Variant]) -> list[str]:
    missing = [variant.label for variant in claim.variants if variant not in begun]
    return [f"Still to be run: {'; '.join(missing)}.", ""] if missing else []


def _row(claim: Claim, variant: Variant, evidence: Evidence) -> str:
    runs, dead, failed = (
        kind[variant.name] for kind in (evidence.runs, evidence.dead, evidence.failed)
    )
    paper = f"{claim.paper[variant.name]:.1f}" if variant.name in claim.paper else ""
    wanted = max(claim.seeds, variant.seeds)
    seeds = f"{len(runs)} of {wanted}" if len(runs) < wanted else f"{len(runs)}"
    seeds += f", {len(failed)} failed" if failed else ""
    seeds += f", {len(dead)} learned nothing" if dead else ""
    if not runs:
        return f"| {variant.label} | {paper} | | {seeds} | | | | | |"
    top1 = f"{mean(runs, 'top1', 100):.1f}{plus_minus(evidence.half[variant.name])}"
    reference = evidence.runs[claim.reference]
    ratio = f"{runs[0]['madds'] / reference[0]['madds']:.2f}" if reference else ""
    return (
        f"| {variant.label} | {paper} | {top1} | {seeds} | {mean(runs, 'fit_top1', 100):.1f} | "
        f"{mean(runs, 'fit_loss'):.3f} | {runs[0]['madds'] / 1e6:.2f} | {ratio} | "
        f"{runs[0]['params'] / 1e6:.2f} |"
    )


def _judgement(finding: Finding, fit: Finding | None, labels: Mapping[str, str]) -> str:
    wanted = finding.expectation
    paper = "" if wanted.paper is None else f"{wanted.paper:+.1f}"
    fitted = f"{_measured(fit)} | {fit.said}" if fit else "|"
    return (
        f"| {compared(wanted, labels)} | {paper} | {_measured(finding)} | {finding.said} "
        f"| {finding.size} | {fitted} |"
    )


def compared(wanted: Expectation, labels: Mapping[str, str]) -> str:
    """Returns what an expectation is of, in words.

    Args:
      wanted: it.
      labels: of variants by name.
    """
    sign = {"above": ">", "below": "<", "alike": "≈"}[wanted.relation]
    said = f"{labels[wanted.of]} {sign} {labels[wanted.than]}"
    if wanted.beyond:
        of, than = wanted.beyond
        said = f"({labels[wanted.of]} - {labels[wanted.than]}) > ({labels[of]} - {labels[than]})"
    if wanted.measure == "fit_loss":
        said += ", loss on training pictures"
    return said


def _measured(finding: Finding) -> str:
    if finding.difference is None:
        return "a run died" if finding.verdict == "not testable" else ""
    digits, unit = (3, "nats") if finding.expectation.measure == "fit_loss" else (1, "points")
    return f"{finding.difference:+.{digits}f}{plus_minus(finding.half_width, digits)} {unit}"


def plus_minus(half: float, digits: int = 1) -> str:
    """Returns a half-width as " ± 1.4"; "" where it is infinite."""
    return f" ± {half:.{digits}f}" if np.isfinite(half) else ""
