"""The claims of the paper against the runs: a page, its figures, and the results they rest on.

    python experiments/report.py --runs=runs/claims
    python experiments/report.py
    python experiments/report.py --large --runs=runs/large

With `--runs`, every finished run there that has no line in experiments/results/claims.jsonl yet is
evaluated and gets one: from the folder where they were trained, for the pictures and because the
line says on which machine. The page and the figures are made from the lines alone, from what
claim_latency.py, claim_first_steps.py and claim_classes.py measured beside them, and from what
people read in them, results/readings.md.
`--large` is of the protocol for an accelerator (claims_large.py), in experiments/results/large.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import claim_classes
import claim_first_steps
import claim_latency
import claims
import claims_large
import one_run
from claim import Plan
from claim_page import read_readings, write_page
from claim_results import failure_of, is_other, is_stale, read_results, result_of, write_results

RESULTS = Path(__file__).parent / "results"
LINES = "claims.jsonl"
READINGS = "readings.md"
MEASURED = (
    claim_latency.FILE,
    claim_first_steps.FILE,
    claim_classes.FILE,
)  # beside the runs of a plan
PLANS = {"small": claims.PLAN, "large": claims_large.PLAN}


def main(arguments: Sequence[str] | None = None) -> int:
    """Adds what is new and writes everything; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, metavar="DIR", help="work directory of the launcher")
    parser.add_argument("--large", action="store_true", help="the protocol for an accelerator")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the page")
    parsed = parser.parse_args(arguments)
    plan = PLANS["large" if parsed.large else "small"]
    out = parsed.out or (RESULTS / "large" if parsed.large else RESULTS)
    file = out / LINES
    lines = read_results(file)
    if parsed.runs:
        try:
            lines = _add_new(plan, parsed.runs, lines, file)
        except (FileNotFoundError, ValueError) as error:
            print(f"report.py: {error}", file=sys.stderr)
            return 1
    found = _current(plan, lines)
    if not found:
        print(f"report.py: no line in {file}; pass --runs=DIR with finished runs", file=sys.stderr)
        return 1
    beside = [out / file.name for file in MEASURED]
    measured = {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in beside if f.exists()}
    try:
        readings = read_readings(out / READINGS)
    except ValueError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 1
    write_page(out, plan, found, measured=measured, readings=readings, data=LINES)
    print(f"written: {out / 'README.md'}")
    return 0


def _current(plan: Plan, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines of variants that there are, with their settings; says which are not.

    Those stay in the file: a claim may have them again.
    """
    known, kept = plan.variants(), []
    for line in found:
        if line["variant"] not in known or is_stale(line, known[line["variant"]]):
            print(f"left out: {line['run']}, of other settings than the claims have now")
        else:
            kept.append(line)
    return kept


def _add_new(
    plan: Plan, runs: Path, found: Sequence[dict[str, Any]], file: Path
) -> list[dict[str, Any]]:
    """Returns the lines with those of newly finished runs, each written as soon as it is there.

    A run that failed has a line, too, until it has not.
    """
    lines = {line["run"]: line for line in found}
    paths = {path.name: path for path in sorted(runs.iterdir())}
    for variant in plan.variants().values():
        for name in (name for name in paths if name.rpartition("_")[0] == variant.name):
            line = lines.get(name)
            measured = line and "failed" not in line and not is_stale(line, variant)
            seed = name.rpartition("_")[2]
            if not seed.isdecimal():
                continue
            if measured:
                print(f"has a line already: {name}; take another --out for runs of your own")
                continue
            run, record = variant.run(int(seed)), one_run.read_record(paths[name])
            if record.state not in (one_run.FINISHED, one_run.FAILED):
                continue
            finished = record.state == one_run.FINISHED
            differs = set(record.arguments) != set(run.arguments())
            if differs or (finished and is_other(paths[name], run)):
                print(f"left out: {name}, trained with other settings than the claims have now")
                continue
            if finished:
                print(f"evaluating {name}", flush=True)
                lines[name] = result_of(paths[name], variant.name)
            else:
                lines[name] = failure_of(paths[name], variant.name, int(seed))
            write_results(file, list(lines.values()))
    return list(lines.values())


if __name__ == "__main__":
    sys.exit(main())
