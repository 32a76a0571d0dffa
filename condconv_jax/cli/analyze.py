"""`condconv analyze`."""

import argparse
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condconv_jax.names import unknown_name

if TYPE_CHECKING:
    import numpy as np

    from condconv_jax.analysis import AnalysedNetwork, Collected, Favourites, SwitchedOff
    from condconv_jax.cli.trained import Trained

HELP = """Report on trained networks: accuracy, cost, training curves and how CondConv layers route,
as one HTML page. Several networks must have been evaluated on the same images."""
LAST, NONE = "last", "none"
SWITCH_OFF_IMAGES = 1000  # seconds for small networks, and one image is 0.1 points
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
    parser.add_argument(
        "--switch-off",
        default=LAST,
        metavar="LAYER",
        help="layer whose experts are switched off one by one, to see what the accuracy loses: a "
        "name in the report, 'last' for the last convolution that routes (the default), or 'none'",
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
        networks.append(_network(name, path, one, curve, arguments.switch_off))
    print("\n" + analysis.text_table(analysis.table(networks)) + "\n")

    data, experiment = trained[0].config["data"], trained[0].experiment
    options = [f"--workdir={path}" for path in paths]
    options += [f"--out={arguments.out}"] if arguments.out else []
    options += [f"--switch-off={arguments.switch_off}"] if arguments.switch_off != LAST else []
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


def _network(
    name: str, path: str, trained: "Trained", curves: Any, switch_off: str
) -> "AnalysedNetwork":
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
    return analysis.AnalysedNetwork(
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
        rank=analysis.expert_rank(state.params),
        modules=found.modules,
        learned=_learned(trained.config["init_from"], state.params),
        favourites=_favourites(trained, found),
        switched_off=_switched_off(name, trained, found, switch_off),
    )


def _favourites(trained: "Trained", found: "Collected") -> dict[str, "Favourites"]:
    """Of the last convolution that routes, and of the classifier where it does."""
    from condconv_jax import analysis

    picture = _pictures(trained, found)
    routed = list(found.modules)
    convolutions = _convolutions(trained, found)
    layers = [*convolutions[-1:], *(layer for layer in routed if layer not in convolutions)]
    return {
        layer: analysis.find_favourites(found.routing[layer], found.labels, picture)
        for layer in layers
    }


def _pictures(trained: "Trained", found: "Collected") -> "Callable[[int], np.ndarray]":
    """Row of what was collected -> its image, as the network sees it."""
    from condconv_jax import config

    source = trained.experiment.eval_source
    return lambda row: config.read_unlabelled(
        trained.config, source[int(found.places[row])]["image"]
    )


def _switched_off(
    name: str, trained: "Trained", found: "Collected", choice: str
) -> "SwitchedOff | None":
    from condconv_jax import analysis, runtime

    if choice == NONE or not found.routing:
        return None
    layer = (_convolutions(trained, found) or list(found.routing))[-1] if choice == LAST else choice
    if layer not in found.modules:
        raise unknown_name("analyze --switch-off", f"layer of {name}", layer, found.modules)
    state, size = trained.state, trained.config["eval_batch_size"]
    batches = analysis.evenly_spaced_batches(
        _pictures(trained, found), found.labels, batch_size=size, limit=SWITCH_OFF_IMAGES
    )
    try:
        return analysis.evaluate_without(
            trained.experiment.task,
            state.params,
            state.model_state,
            batches,
            layer=layer,
            modules=found.modules[layer],
            mesh=runtime.make_mesh(),
        )
    except ValueError as error:
        if choice != LAST:
            raise
        print(f"no expert is switched off: {error}")  # nobody asked, so the report goes on
        return None


def _convolutions(trained: "Trained", found: "Collected") -> list[str]:
    """The layers with more than a classifier in them."""
    classifiers = set(trained.experiment.task.model.classifiers())
    return [layer for layer, modules in found.modules.items() if set(modules) - classifiers]


def _learned(start: str, params: Any) -> dict[str, float]:
    """How far the experts have come apart since the weights that the run started from."""
    from condconv_jax import analysis, runtime, training

    if not start:
        return {}
    try:
        before, _ = training.weights_of(runtime.load_tree(start, only=training.WEIGHTS))
    except FileNotFoundError:  # an optional column must not cost the report
        print(f"the weights that training started from are gone: {start}")
        return {}
    return analysis.learned_spread(before, params)


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
