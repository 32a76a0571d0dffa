"""`condconv compress`."""

import argparse
from collections.abc import Sequence

HELP = """A trained CondConv network made small and quick for inference: batch norms folded,
experts in fewer bytes, sparse routing by the experts' mean and the k that deviate most. Measures
accuracy, latency at batch 1 and bytes of each choice, and writes the fastest that loses no more
than asked."""
EXAMPLE = """condconv compress --workdir=runs/experts16 --out=runs/quick --max-loss=1
  condconv compress --workdir=runs/experts16 --out=runs/quick --config.data.eval='train[90%:]'
  condconv export --workdir=runs/quick --format=onnx"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="work directory, or a checkpoint in it"
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    parser.add_argument(
        "--out", metavar="DIR", help="work directory of the network that is chosen; none: no choice"
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="of accuracy (or average precision), in hundredths (default: 1)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=1024,
        metavar="N",
        help="training pictures to average the routing weights over (default: 1024)",
    )


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Measures, prints a table, and writes what is chosen."""
    if arguments.max_loss < 0 or arguments.images < 1:
        raise ValueError("--max-loss is 0 or more, --images at least 1")

    from condconv_jax import runtime
    from condconv_jax.cli.compressing import candidates_of, choose, measure, table, write
    from condconv_jax.cli.trained import load_trained

    runtime.enable_compile_cache()
    trained = load_trained(arguments.workdir, overrides, best=arguments.best)
    rows = measure(trained, candidates_of(trained, images=arguments.images))
    chosen = choose(rows, arguments.max_loss / 100)
    data, task = trained.config["data"], trained.experiment.task
    print(f"{task.best_metric} on {data['name']} {data['eval']!r}; latency of one picture")
    print(table(rows, chosen))
    if arguments.out:
        write(arguments.out, trained, rows, chosen)
        print(f"{arguments.out}: {chosen.candidate.name}; evaluate, predict and export take it")
