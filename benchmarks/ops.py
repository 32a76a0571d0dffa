"""Single layers: ours against the static twin, the reference and PyTorch with timm's layer.

    python benchmarks/ops.py --out=benchmarks/results/ops

All contenders of a row are timed in turn in one process. Rows are written to OUT.jsonl as they
come, and a run that was stopped goes on where it was; OUT.md sums them up. Needs the extra `bench`.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peers
import report

from condconv_jax.performance.layers import LAYERS, Layer, device_arrays
from condconv_jax.performance.passes import PASSES, compile_pass, pass_arrays
from condconv_jax.performance.timing import interleave, ready
from condconv_jax.performance.tune import give_up, hopeless, rule

BATCHES = (1, 8, 32, 128)
EXPERTS = (4, 8, 32)
# Beyond these one call of the reference takes seconds to minutes.
REFERENCE_BATCH = {"forward": 32, "gradients": 8}
# Relative to the largest entry; sums of different orders in float32.
AGREEMENT = 1e-3


def time_row(
    layer: Layer, batch: int, num_experts: int, direction: str, rounds: int
) -> dict[str, Any]:
    """Returns the milliseconds of each contender, after checking that they compute the same."""
    arrays = layer.arrays(batch, num_experts)
    x, experts, _, slope = placed = device_arrays(arrays)

    def call(op: Callable[..., Any], values: Any) -> Callable[[], Any]:
        return ready(compile_pass(op, values, direction), *pass_arrays(values, direction))

    peer = peers.cond_conv(layer, num_experts)
    calls = {
        "ours": call(layer.op(), placed),
        "static": call(layer.static_op(), (x, experts[0], slope)),
        "torch": getattr(peers, direction)(peer, arrays),
    }
    check(calls, direction)
    if batch <= REFERENCE_BATCH[direction] and not hopeless(layer, batch, "reference", direction):
        # Timed only if it is not hopelessly slow; the others are in any case.
        tried = {"ours": calls["ours"], "reference": call(layer.op("reference"), placed)}
        calls |= give_up(tried)[0]
    seconds = interleave(calls, rounds=rounds)
    return {
        "method": rule(layer, batch, 4),
        "milliseconds": {name: 1e3 * value for name, value in seconds.items()},
    }


def check(calls: dict[str, Callable[[], Any]], direction: str) -> None:
    """Raises AssertionError unless ours and PyTorch's results are the same."""
    ours, theirs = calls["ours"](), calls["torch"]()
    if direction == "gradients":  # (y, (dx, dw, dr)) and (dx, dw, dr): compare those by routing
        ours, theirs = ours[1][2], theirs[2]
    else:
        theirs = theirs.permute(0, 2, 3, 1)
    difference = np.abs(np.asarray(ours) - theirs.numpy()).max()
    assert difference <= AGREEMENT * np.abs(np.asarray(ours)).max(), difference


def main() -> None:
    """Times the rows asked for that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument("--layer", action="append", choices=LAYERS)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--experts", action="append", type=int)
    parser.add_argument("--pass", dest="passes", action="append", choices=PASSES)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    path = arguments.out.with_suffix(".jsonl")
    if not path.exists():
        path.write_text(json.dumps(peers.MACHINE) + "\n")
    done = {report.key(row) for row in report.read_rows(path)}
    for name, num_experts, batch, direction in itertools.product(
        arguments.layer or LAYERS,
        arguments.experts or EXPERTS,
        arguments.batch or BATCHES,
        arguments.passes or PASSES,
    ):
        row = {"layer": name, "batch": batch, "experts": num_experts, "pass": direction}
        if report.key(row) in done:
            continue
        row |= time_row(LAYERS[name], batch, num_experts, direction, arguments.rounds)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(report.line(row), flush=True)
        # Hundreds of compiled programs would otherwise stay.
        jax.clear_caches()
    arguments.out.with_suffix(".md").write_text(report.of_ops(path))


if __name__ == "__main__":
    main()
