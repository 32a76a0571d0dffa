"""The tables of `condconv benchmark`; each row is printed as soon as it is measured."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from condconv_jax import ops
from condconv_jax.performance import roofline
from condconv_jax.performance.against_static import compare
from condconv_jax.performance.layers import Layer
from condconv_jax.performance.machine import Peaks
from condconv_jax.performance.roofline import three_digits
from condconv_jax.performance.tune import TOLERANCE, tune_row


@dataclasses.dataclass(frozen=True)
class Cases:
    """What to time, every combination of it.

    Attributes:
      layers: of `LAYERS`.
      batches: values of b.
      experts: values of e.
      directions: of `PASSES`.
      dtype: of x and the experts.
      rounds: timings of each.
    """

    layers: Sequence[Layer]
    batches: Sequence[int]
    experts: Sequence[int]
    directions: Sequence[str]
    dtype: str
    rounds: int

    def __iter__(self) -> Iterator[tuple[Layer, int, int, str]]:
        return itertools.product(self.layers, self.batches, self.experts, self.directions)

    def start(self, layer: Any, batch: Any, experts: Any, direction: Any) -> str:
        """Returns the columns of a line that say what was timed."""
        width = max(len("layer"), *(len(layer.name) for layer in self.layers))
        return f"{layer:<{width}}  {batch:>5}  {experts:>7}  {direction:<9}"

    def heading(self) -> str:
        """Returns the names of those columns."""
        return self.start("layer", "batch", "experts", "pass")


def print_comparisons(cases: Cases, peaks: Peaks) -> list[dict[str, Any]]:
    """Prints "auto" against the static twin and its bound; returns the rows."""
    method = _width(ops.METHODS)
    columns = ("ms", "static ms", "ratio", "GFLOP/s", "bound ms", "of bound")
    heads = "".join(f"{head:>11}" for head in columns)
    print(f"{cases.heading()}  {'method':<{method}}{heads}  bound by", flush=True)
    found = []
    for layer, batch, num_experts, direction in cases:
        row = compare(layer, batch, num_experts, direction, cases.dtype, peaks, rounds=cases.rounds)
        numbers = (
            milliseconds(row.seconds),
            milliseconds(row.static_seconds),
            f"{row.ratio:.2f}",
            f"{row.cost.flops / row.seconds / 1e9:.1f}",
            milliseconds(row.bound.seconds),
            f"{row.fraction:.0%}",
        )
        start = cases.start(layer.name, batch, num_experts, direction)
        cells = "".join(f"{number:>11}" for number in numbers)
        print(f"{start}  {row.method:<{method}}{cells}  {row.bound.binds}", flush=True)
        found.append({**dataclasses.asdict(row), "ratio": row.ratio, "fraction": row.fraction})
    print(
        "\ngradients: forward and all gradients. of bound: the bound over the time; a layer whose"
    )
    print("arrays stay in a cache from call to call can pass 100%.")
    return found


def print_tuning(cases: Cases) -> list[dict[str, Any]]:
    """Prints the times of every method, what was skipped and where the rule is off."""
    width = _width(ops.METHODS)
    heads = "".join(f"{name:>{width + 2}}" for name in ops.METHODS)
    print(f"{cases.heading()}{heads}  {'auto':<{width}}  {'best':<{width}}  auto/best", flush=True)
    rows = []
    for case in cases:
        row = tune_row(*case, cases.dtype, rounds=cases.rounds)
        rows.append(row)
        cells = dict.fromkeys(ops.METHODS, "-")
        cells |= dict.fromkeys(row.skipped, "skipped")
        cells |= {name: milliseconds(seconds) for name, seconds in row.seconds.items()}
        start = cases.start(row.layer, row.batch, row.num_experts, row.direction)
        times = "".join(f"{cell:>{width + 2}}" for cell in cells.values())
        choice = f"{row.choice:<{width}}  {row.best:<{width}}  {row.ratio:9.2f}"
        print(f"{start}{times}  {choice}", flush=True)
    print("\nmilliseconds; -: cannot run this layer. gradients: forward and all gradients.")

    starts = [cases.start(r.layer, r.batch, r.num_experts, r.direction) for r in rows]
    skipped = [
        f"  {start}  {name}: {why}"
        for start, row in zip(starts, rows, strict=True)
        for name, why in row.skipped.items()
    ]
    if skipped:
        print("\nskipped:", *skipped, sep="\n")
    off = [
        f"  {start}  {row.best} takes {milliseconds(row.seconds[row.best])} ms, "
        f"{row.choice} {milliseconds(row.seconds[row.choice])}: {row.ratio:.2f} times as long"
        for start, row in zip(starts, rows, strict=True)
        if row.off
    ]
    print(
        f"\nthe rule is off in {len(off)} of {len(rows)} rows "
        f"(off: its method takes more than {TOLERANCE} times as long as the best)",
        *off,
        sep="\n",
    )
    return [
        {**dataclasses.asdict(row), "best": row.best, "ratio": row.ratio, "off": row.off}
        for row in rows
    ]


def print_rooflines(cases: Cases, peaks: Peaks) -> list[dict[str, Any]]:
    """Prints a Markdown table for each batch and number of experts; returns the rows."""
    itemsize = jnp.dtype(cases.dtype).itemsize
    found = []
    for batch, num_experts in itertools.product(cases.batches, cases.experts):
        rows = roofline.rows(cases.layers, batch, num_experts, peaks, itemsize=itemsize)
        print(f"Batch {batch}, {num_experts} experts, {cases.dtype}:\n")
        print(f"{roofline.markdown(rows)}\n")
        case = {"batch": batch, "num_experts": num_experts, "dtype": cases.dtype}
        found += [{**case, **dataclasses.asdict(row)} for row in rows]
    return found


def machine_line(described: Mapping[str, Any]) -> str:
    """Returns a machine (`machine.describe`) as a sentence."""
    device = "" if described["backend"] == "cpu" else f" ({described['device']})"
    names = ("python", "jax", "jaxlib", "numpy")
    parts = [
        f"{described['processor']}, {described['cores']} cores, {described['memory_gib']} GiB",
        f"backend {described['backend']}{device}",
        ", ".join(f"{name} {described[name]}" for name in names),
        f"huge pages {described['huge_pages']}",
    ]
    if described["xla_flags"]:
        parts.append(f"XLA_FLAGS {described['xla_flags']}")
    return "; ".join(parts)


def peaks_line(peaks: Peaks, dtype: str) -> str:
    """Returns peaks as a sentence."""
    return (
        f"{three_digits(peaks.matmul / 1e9)} GFLOP/s ({dtype} matrix product), "
        f"{three_digits(peaks.read / 1e9)} GB/s read, "
        f"{three_digits(peaks.fresh / 1e9)} GB/s written to fresh memory"
    )


def milliseconds(seconds: float) -> str:
    """Returns a time in ms, without the unit."""
    return three_digits(seconds * 1e3)


def _width(names: Mapping[str, Any]) -> int:
    return max(len(name) for name in names)
