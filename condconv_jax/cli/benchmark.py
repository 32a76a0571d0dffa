"""`condconv benchmark`."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condconv_jax.cli.benchmark_tables import Cases

HELP = """Times of single layers on this machine: CondConv as "auto" runs it against a static
convolution and against the least time that arithmetic and memory allow; or every method against
the one that "auto" picks. What else runs meanwhile is timed too: stop it."""
EXAMPLE = """condconv benchmark --layer pw512 --layer dw512 --batch 1,32 --experts 8
  condconv benchmark --tune --pass forward
  condconv benchmark --roofline"""

# One layer of each kind.
FEW = ("pw512", "cls1024", "dw512", "dense256")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--layer",
        action="append",
        metavar="NAME",
        help=f"a layer by name, once for each; default: {', '.join(FEW)}, all for --roofline",
    )
    parser.add_argument(
        "--batch",
        action="append",
        metavar="N",
        help="examples, one number or several, e.g. 1,32; default: 1,32, 32 for --roofline",
    )
    parser.add_argument(
        "--experts",
        action="append",
        metavar="N",
        help="number of experts, one or several; default: 8",
    )
    parser.add_argument(
        "--pass",
        dest="direction",
        choices=("forward", "gradients", "both"),
        default="both",
        help="y alone; or y and all gradients, as in training; default: both",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="timings, the median counts; default: 7"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of inputs and experts"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--tune", action="store_true", help="time every method; say where the rule of auto is off"
    )
    what.add_argument(
        "--roofline",
        action="store_true",
        help="arithmetic, traffic and least time of every method, in Markdown; times no layer",
    )
    parser.add_argument("--json", metavar="FILE", help="write machine, peaks and rows here too")


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Prints the machine and the table."""
    if overrides:
        raise ValueError(f"unknown argument {overrides[0]!r}; --help lists those there are")
    if arguments.rounds < 1:
        raise ValueError(f"--rounds is {arguments.rounds}; pass at least 1")
    if arguments.json and not Path(arguments.json).parent.is_dir():
        raise FileNotFoundError(f"--json: no folder {str(Path(arguments.json).parent)!r}; make it")
    cases = _cases(arguments)

    from condconv_jax.cli import benchmark_tables as tables
    from condconv_jax.performance import machine

    described = machine.describe()
    print(f"machine: {tables.machine_line(described)}")
    report: dict[str, Any] = {"machine": described}
    if arguments.tune:
        print()
        report["rows"] = tables.print_tuning(cases)
    else:
        peaks = machine.measure_peaks(cases.dtype)
        report["peaks"] = dataclasses.asdict(peaks)
        print(f"peaks: {tables.peaks_line(peaks, cases.dtype)}\n")
        show = tables.print_rooflines if arguments.roofline else tables.print_comparisons
        report["rows"] = show(cases, peaks)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {arguments.json}")


def _cases(arguments: argparse.Namespace) -> "Cases":
    from condconv_jax.cli.benchmark_tables import Cases
    from condconv_jax.names import unknown_name
    from condconv_jax.performance.layers import LAYERS
    from condconv_jax.performance.passes import PASSES

    names = arguments.layer or (LAYERS if arguments.roofline else FEW)
    for name in names:
        if name not in LAYERS:
            raise unknown_name("--layer", "layer", name, LAYERS)
    return Cases(
        layers=[LAYERS[name] for name in names],
        batches=_numbers("--batch", arguments.batch, (32,) if arguments.roofline else (1, 32)),
        experts=_numbers("--experts", arguments.experts, (8,)),
        directions=PASSES if arguments.direction == "both" else (arguments.direction,),
        dtype=arguments.dtype,
        rounds=arguments.rounds,
    )


def _numbers(option: str, texts: Sequence[str] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    """`--batch 1,8 --batch 32` as (1, 8, 32)."""
    if texts is None:
        return default
    words = [word.strip() for text in texts for word in text.split(",")]
    for word in words:
        if not (word.isdecimal() and int(word) > 0):
            raise ValueError(f"{option} is {word!r}; pass positive integers, e.g. {option} 1,32")
    return tuple(int(word) for word in words)
