"""`condconv evaluate`."""

import argparse
from collections.abc import Sequence

from condconv_jax.cli.processes import add_process_arguments, join_processes, say

HELP = """Metrics of a trained network on the evaluation split of its config, or another: accuracy,
or a detector's average precision."""
EXAMPLE = "condconv evaluate --workdir=runs/experts16 --config.data.eval='test[:500]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="work directory, or a checkpoint in it"
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    parser.add_argument(
        "--experts",
        choices=["float32", "bfloat16", "int8"],
        default="float32",
        help="round the experts to fewer bytes, as for inference",
    )
    add_process_arguments(parser)


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluates and prints each metric."""
    from condconv_jax import nn, runtime
    from condconv_jax.cli.trained import load_trained

    join_processes(arguments)
    runtime.enable_compile_cache()
    trained = load_trained(arguments.workdir, overrides, best=arguments.best)
    state = trained.state
    if arguments.experts != "float32":
        state = state.replace(params=nn.compress_experts(state.params, arguments.experts))
    scores = trained.evaluate(state=state)
    data = trained.config["data"]
    say(f"{trained.workdir.path}, step {int(state.step)}, on {data['name']} {data['eval']!r}:")
    width = max(10, *map(len, scores))
    for name, value in scores.items():
        digits = 0 if name == "examples" else 4
        say(f"  {name:<{width}} {value:.{digits}f}")
