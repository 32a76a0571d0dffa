"""Benchmark results as Markdown."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from condconv_jax.performance.layers import LAYERS

Row = dict[str, Any]


def key(row: Row) -> tuple[Any, ...]:
    """What tells one row from another."""
    return row["layer"], row["batch"], row["experts"], row["pass"]


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a file of `ops.py`; its first line describes the machine."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def line(row: Row) -> str:
    """Returns a row as one line of plain text."""
    times = ", ".join(f"{name} {value:.3g}" for name, value in row["milliseconds"].items())
    return f"{row['layer']} b{row['batch']} e{row['experts']} {row['pass']}: {times} ms"


def of_ops(path: Path) -> str:
    """Returns the tables of single layers."""
    machine, rows = json.loads(path.read_text().splitlines()[0]), read_rows(path)
    lines = [_machine(machine), "", *_summary(rows), "", *_above_static(rows), ""]
    lines += [
        "Milliseconds, and ours as a multiple of the others; - where one call took too long.",
        "",
        "| layer | batch | experts | pass | method | ours | static | torch | reference "
        "| / static | / torch |",
        "|---|--:|--:|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        times = row["milliseconds"]
        cells = [
            row["layer"],
            row["batch"],
            row["experts"],
            row["pass"],
            row["method"],
            *(_number(times.get(name)) for name in ("ours", "static", "torch", "reference")),
            *(_number(_ratio(row, name)) for name in ("static", "torch")),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _summary(rows: list[Row]) -> Iterable[str]:
    yield "| pass | batch | rows | / torch: geometric mean | largest | / static: geometric mean |"
    yield "|---|---|--:|--:|--:|--:|"
    for direction in ("forward", "gradients"):
        batches = sorted({row["batch"] for row in rows})
        for label, chosen in [("all", batches), *((str(b), [b]) for b in batches)]:
            some = [r for r in rows if r["pass"] == direction and r["batch"] in chosen]
            by = {name: [v for r in some if (v := _ratio(r, name))] for name in ("torch", "static")}
            if by["torch"] and by["static"]:
                means = {name: statistics.geometric_mean(values) for name, values in by.items()}
                yield (
                    f"| {direction} | {label} | {len(by['torch'])} | {means['torch']:.2f} "
                    f"| {max(by['torch']):.2f} | {means['static']:.2f} |"
                )


# What a CondConv layer may take, as a multiple of its static twin times the ratio of multiply-adds.
STATIC_LIMIT = 1.3


def _above_static(rows: list[Row]) -> Iterable[str]:
    """Which layers of many channels on large maps cost more than their multiply-adds say."""
    above, count = [], 0
    for row in rows:
        layer = LAYERS[row["layer"]]
        if layer.channels < 256 or layer.size < 14:
            continue
        count += 1
        # Mixing E experts is as many multiply-adds as E positions of the map.
        limit = STATIC_LIMIT * (1 + row["experts"] / layer.geometry().positions())
        ratio = _ratio(row, "static")
        if ratio is not None and ratio > limit:
            name = f"{row['layer']} b{row['batch']} e{row['experts']} {row['pass']}"
            above.append((ratio / limit, f"- {name}: {ratio:.2f}, limit {limit:.2f}"))
    yield (
        f"Layers of at least 256 channels on maps of at least 14x14: in {count - len(above)} of "
        f"{count} rows ours / static is at most {STATIC_LIMIT} times the ratio of their "
        "multiply-adds. The others:"
    )
    yield ""
    yield from (line for _, line in sorted(above, reverse=True))


def of_models(results: dict[str, Any]) -> str:
    """Returns the tables of whole networks."""
    lines = [_machine(results["machine"])]
    for name, parts in results.items():
        if name == "machine":
            continue
        lines += ["", f"## {name}"]
        for part, times in parts.items():
            if part != "memory":
                lines += ["", f"| {part} | ms | ours as a multiple |", "|---|--:|--:|"]
                lines += [
                    f"| {who} | {_number(1e3 * seconds)} | {times['ours'] / seconds:.2f} |"
                    for who, seconds in times.items()
                ]
        if "memory" in parts:
            lines += ["", "| training | temporary MB | state MB | compile s |", "|---|--:|--:|--:|"]
            lines += [
                f"| {who} | {values['temporary'] / 1e6:.0f} | {values['state'] / 1e6:.0f} "
                f"| {values['compile']:.1f} |"
                for who, values in parts["memory"].items()
            ]
    return "\n".join(lines) + "\n"


def _ratio(row: Row, name: str) -> float | None:
    times = row["milliseconds"]
    return times["ours"] / times[name] if name in times else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _machine(facts: dict[str, Any]) -> str:
    return "Measured on: " + ", ".join(f"{name} {value}" for name, value in facts.items() if value)
