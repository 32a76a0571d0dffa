"""`condconv compress`."""

import argparse
from collections.abc import Sequence

HELP = """A trained CondConv network made small and quick for inference: batch norms folded,
experts in fewer bytes, sparse routing by the experts' mean and the k that deviate most. Measures
accuracy, latency at batch 1 and bytes of each choice, here or in a format of `condconv export`, and
writes the fastest that loses no more than asked."""
EXAMPLE = """condconv compress --workdir=runs/experts16 --out=runs/quick --validation='train[90%:]'
  condconv predict --workdir=runs/quick pictures/
  condconv compress --workdir=runs/experts16 --out=runs/small --format=onnx --max-loss=0.5
  condconv export --workdir=runs/small --format=onnx"""


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
        "--format",
        choices=["stablehlo", "onnx", "litert"],
        help="time programs of this format, which mix all experts; none: this package",
    )
    parser.add_argument(
        "--validation",
        metavar="SPLIT",
        help="pictures to choose by (default: those of evaluation, on which the accuracy of what "
        "is chosen is then an optimistic one)",
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

    from condconv_jax import models, runtime
    from condconv_jax.cli.compressing import candidates_of, choose, measure, table, write
    from condconv_jax.cli.flags import config_from_dict
    from condconv_jax.cli.runs import check_new
    from condconv_jax.cli.trained import load_trained
    from condconv_jax.interop.export import require

    if arguments.format:
        require(arguments.format)
    if arguments.out:
        check_new("compress", arguments.out)
    runtime.enable_compile_cache()
    validation = arguments.validation
    changed = [f"--config.data.eval={validation}"] if validation else []
    trained = load_trained(arguments.workdir, [*overrides, *changed], best=arguments.best)
    if validation and validation.split("[")[0] == trained.config["data"]["train"]:
        print(f"note: {validation} was trained on, too; of other pictures more may be lost")
    sparse = arguments.format is None
    candidates = candidates_of(trained, images=arguments.images, sparse=sparse)
    if sparse and not models.sparsifies(trained.experiment.task.model):
        print("note: no sparse routing: it is of dense CondConv, routed by sigmoid or softmax")
    rows = measure(trained, candidates, arguments.format)
    chosen = choose(rows, arguments.max_loss / 100)
    data, task = trained.config["data"], trained.experiment.task
    where = f" as {arguments.format}" if arguments.format else ""
    print(f"{task.best_metric} on {data['name']} {data['eval']!r}; latency of one picture{where}")
    print(table(rows, chosen))
    if arguments.out:
        config = config_from_dict(trained.workdir.read_config(), overrides).to_dict()
        write(arguments.out, trained, rows, chosen, config)
        print(f"{arguments.out}: {chosen.candidate.name}; evaluate, predict and export take it")
