"""`condconv analyze`."""

import argparse
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condconv_jax.analysis import Network
    from condconv_jax.cli.trained import Trained

HELP = """Report on trained networks: accuracy, cost, training curves and how CondConv layers route,
as one HTML page. Several networks must have been evaluated on the same images."""
EXAMPLE = """condconv analyze --workdir=runs/demo/static --workdir=runs/demo/condconv \\
      --out=runs/demo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--workdir",
        required=True,
        action="append",
        metavar="DIR",
        help="work directory, or a checkpoint in it; once for each network",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where the report goes; of one network, its report/ by default"
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoints, not the last")


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluates the networks, prints the table and writes the report."""
    from condconv_jax import analysis
    from condconv_jax.cli.trained import load_trained

    paths = arguments.workdir
    if arguments.out is None and len(paths) > 1:
        raise ValueError(f"analyze: {len(paths)} work directories and no --out; pass --out=DIR")
    # What is wrong with any of them shows before the first is evaluated.
    analysis.require_matplotlib()
    trained = [load_trained(path, overrides, best=arguments.best) for path in paths]
    _check_same_data(paths, trained)
    names = unique_names([str(one.workdir.path) for one in trained])
    curves = [
        # Converted weights have no training of their own.
        analysis.read_curves(one.workdir.metrics, last_step=step)
        if (step := int(one.state.step))
        else None
        for one in trained
    ]
    networks = []
    for name, path, one, curve in zip(names, paths, trained, curves, strict=True):
        print(f"evaluating {name} on {len(one.experiment.eval_source)} images")
        networks.append(_network(name, path, one, curve))
    print("\n" + analysis.text_table(analysis.table(networks)) + "\n")

    data, experiment = trained[0].config["data"], trained[0].experiment
    options = [f"--workdir={path}" for path in paths]
    options += [f"--out={arguments.out}"] if arguments.out else []
    options += ["--best"] if arguments.best else []
    page = analysis.write_report(
        arguments.out or trained[0].workdir.report,
        networks,
        class_names=experiment.class_names,
        data=f"{data['name']} {data['dataset']}".strip()
        + f", split {data['eval']}: {len(experiment.eval_source):,} images of "
        f"{len(experiment.class_names):,} classes",
        command=["condconv", "analyze", *options, *overrides],
        versions={name: importlib.metadata.version(name) for name in ("condconv_jax", "jax")},
    )
    print(f"report: {page}")


def unique_names(paths: Sequence[str]) -> list[str]:
    """Returns a short name for each work directory: its folder, with as much before as needed.

    Raises:
      ValueError: if two are the same.
    """
    parts = [Path(path).parts for path in paths]
    if len(set(parts)) < len(parts):
        raise ValueError(f"analyze: {', '.join(paths)} has one network twice; pass each once")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _network(name: str, path: str, trained: "Trained", curves: Any) -> "Network":
    from condconv_jax import analysis, runtime

    experiment, state = trained.experiment, trained.state
    task = experiment.task
    costs = analysis.layer_costs(task.model, task.image_size)
    found = analysis.collect(
        task,
        state.params,
        state.model_state,
        experiment.eval_batches(),
        mesh=runtime.make_mesh(),
        module_order=[cost.name for cost in costs],
    )
    return analysis.Network(
        name=name,
        workdir=path,
        step=int(state.step),
        config=trained.config,
        madds=sum(cost.total for cost in costs),
        overhead=sum(cost.mixing + cost.routing for cost in costs),
        params=sum(cost.params for cost in costs),
        scores=found.scores,
        curves=curves,
        labels=found.labels,
        routing=found.routing,
        spread=analysis.expert_spread(state.params),
        learned=_learned(trained.config["init_from"], state.params),
    )


def _learned(start: str, params: Any) -> dict[str, float]:
    """How far the experts have come apart since the weights that the run started from."""
    from condconv_jax import analysis, runtime

    if not start:
        return {}
    try:
        before = runtime.load_tree(start, only=("params",))
    except FileNotFoundError:  # an optional column must not cost the report
        print(f"the weights that training started from are gone: {start}")
        return {}
    return analysis.learned_spread(before["params"], params)


def _check_same_data(paths: Sequence[str], trained: Sequence["Trained"]) -> None:
    first = trained[0]
    for path, other in zip(paths, trained, strict=True):
        if other.config["task"] != "classification":
            raise ValueError(
                f"analyze: {path} is a run of {other.config['task']}; only classification can be "
                "analysed"
            )
        ours, theirs = first.config["data"], other.config["data"]
        for key in ("name", "dataset", "eval"):
            if ours[key] != theirs[key]:
                raise ValueError(
                    f"analyze: data.{key} is {ours[key]!r} in {paths[0]} and {theirs[key]!r} in "
                    f"{path}; compare networks on the same images, or pass --config.data.{key}=..."
                )
        if first.experiment.class_names != other.experiment.class_names:
            raise ValueError(
                f"analyze: {paths[0]} has {len(first.experiment.class_names)} classes, {path} "
                f"{len(other.experiment.class_names)}, or other names; compare networks of the "
                "same classes"
            )
