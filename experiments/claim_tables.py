"""Tables of a claim: its networks, and the differences that it expects between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from claim import Claim, Variant
from claim_evidence import Evidence
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
        "| difference | paper | here | verdict | on training pictures | verdict |",
        "|---|--:|--:|---|--:|---|",
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
    seeds = f"{len(runs)} of {claim.seeds}" if len(runs) < claim.seeds else f"{len(runs)}"
    seeds += f", {len(failed)} failed" if failed else ""
    seeds += f", {len(dead)} learned nothing" if dead else ""
    if dead and not runs:
        return f"| {variant.label} | {paper} | {mean(dead, 'top1', 100):.1f} | {seeds} | | | | | |"
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
    sign = {"above": ">", "below": "<", "alike": "≈"}[wanted.relation]
    paper = "" if wanted.paper is None else f"{wanted.paper:+.1f}"
    compared = f"{labels[wanted.of]} {sign} {labels[wanted.than]}"
    if wanted.beyond:
        of, than = wanted.beyond
        compared = f"{labels[wanted.of]} over {labels[wanted.than]}, more than "
        compared += f"{labels[of]} over {labels[than]}"
    if wanted.measure == "fit_loss":
        compared += ", loss on training pictures"
    fitted = _measured(fit) if fit else "|"
    return f"| {compared} | {paper} | {_measured(finding)} | {fitted} |"


def _measured(finding: Finding) -> str:
    """A difference and the verdict on it, as two cells."""
    here = ""
    if finding.difference is not None:
        digits, unit = (3, "nats") if finding.expectation.measure == "fit_loss" else (1, "points")
        half = plus_minus(finding.half_width, digits)
        here = f"{finding.difference:+.{digits}f}{half} {unit}"
    verdict = str(finding.verdict)
    if finding.seeds == 1 and verdict in ("confirmed", "contradicted"):
        verdict += " (one seed)"
    return f"{here} | {verdict}"


def mean(runs: Sequence[Mapping[str, Any]], key: str, scale: float = 1.0) -> float:
    """Returns the mean of a measure over runs, times `scale`."""
    return float(np.mean([scale * run[key] for run in runs]))


def plus_minus(half: float, digits: int = 1) -> str:
    """Returns a half-width as " ± 1.4"; "" where it is infinite."""
    return f" ± {half:.{digits}f}" if np.isfinite(half) else ""
