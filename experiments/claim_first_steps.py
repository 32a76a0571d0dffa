"""The first epochs of a mixture beside those of one convolution, step by step, for claim b.

    python experiments/launch.py experiments/claim_first_steps.py --workdir=runs/first_steps
    python experiments/claim_first_steps.py --runs=runs/first_steps

Training is chaotic: what one step rounds differently grows until two runs of one seed are as far
apart as any. So a mixture cannot be told to train as one convolution does by the end of training,
but by how fast they part: no faster than two programs of that one convolution, which differ in
rounding alone. Three programs of 8 experts are trained with each of four seeds: the one that is
chosen by itself, whose convolutions are C++ on a CPU; the portable one, of JAX's operations; and
the mixture. Two epochs, as the protocol warms up in the first.
The second command writes experiments/results/first_steps.json, which experiments/report.py reads.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import one_run
from claim import CONFIG
from claim_networks import EXPERTS, with_experts
from sweep import Run

from condconv_jax import runtime
from condconv_jax.runtime.atomic import write_text

FILE = Path(__file__).parent / "results" / "first_steps.json"
ONE, OTHER, MIXTURE = "auto", "portable", "mixture"  # methods
SEEDS = range(4)
EPOCHS = 2.0
STEPS = 5  # of one row of the curves

SWEEP = [
    Run(
        f"{method}_{seed}",
        CONFIG,
        {
            **with_experts(EXPERTS, model__method=method),
            "epochs": EPOCHS,
            "log_every": STEPS,
            "eval_every_epochs": EPOCHS,
            "seed": seed,
        },
    )
    for seed in SEEDS
    for method in (ONE, OTHER, MIXTURE)
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Collects the curves and writes them; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="of the launcher")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="of the losses")
    parsed = parser.parse_args(arguments)
    try:
        found = read_runs(parsed.runs)
    except ValueError as error:
        print(f"claim_first_steps.py: {error}", file=sys.stderr)
        return 1
    write_text(parsed.out, json.dumps(found) + "\n")
    print(f"written: {parsed.out}")
    return 0


def read_runs(runs: Path) -> dict[str, Any]:
    """Returns the curves of finished runs.

    Args:
      runs: work directory of the launcher.

    Returns:
      {"machines": of the runs, "commits": of them, "step": last step of each row, "losses": by
      method, for each seed the mean training losses of the rows}.

    Raises:
      ValueError: if a run has not finished, or was trained with other arguments; or if the two
        programs of one convolution were one.
    """
    steps: list[int] = []
    losses: dict[str, list[list[float]]] = {ONE: [], OTHER: [], MIXTURE: []}
    machines, commits = set(), set()
    for run in SWEEP:
        record = one_run.read_record(runs / run.name)
        if record.state != one_run.FINISHED or record.arguments != tuple(run.arguments()):
            raise ValueError(
                f"{runs / run.name} is no finished run of this sweep; start it with launch.py"
            )
        workdir = runtime.WorkDir(runs / run.name)
        rows = [row for row in runtime.read_json_lines(workdir.metrics) if row["kind"] == "train"]
        steps = [row["step"] for row in rows]
        # As many digits as a float32 has.
        losses[run.overrides["model.method"]].append([float(f"{row['loss']:.9g}") for row in rows])
        about = workdir.read_done()["machine"]
        machines.add(f"{about['processor']}, {about['device']}, jax {about['jax']}")
        commits.add(record.commit)
    if losses[ONE] == losses[OTHER]:
        raise ValueError(
            f"{runs}: {ONE} and {OTHER} were the same program; train them where a C++ compiler is "
            "found, on a CPU"
        )
    return {
        "machines": sorted(machines),
        "commits": sorted(commits),
        "step": steps,
        "losses": losses,
    }


if __name__ == "__main__":
    sys.exit(main())
