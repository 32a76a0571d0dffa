"""What a finished run of a claim says: one line of JSON, with all that the report needs."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import one_run

from condconv_jax import analysis, runtime
from condconv_jax.cli.compressing import candidates_of, score
from condconv_jax.cli.network import network_of
from condconv_jax.cli.trained import Trained, load_trained
from condconv_jax.performance import machine
from condconv_jax.runtime.atomic import write_text

POINTS = 60  # of a training curve
CALIBRATION_IMAGES = 1024  # of training, over which routing weights are averaged


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a results file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_results(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replaces a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_text(path, text)


def result_of(path: Path, variant: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what a finished run says, evaluated as it ended.

    Args:
      path: its work directory.
      variant: name of its network, `claim.Variant.name`.
      overrides: "--config.KEY=VALUE" for the evaluation, such as where the data is now.

    Raises:
      FileNotFoundError: if it has no checkpoint.
    """
    trained = load_trained(path, overrides)
    config, task = trained.config, trained.experiment.task
    costs = analysis.layer_costs(task.model, task.image_size)
    found = analysis.collect(
        task,
        trained.state.params,
        trained.state.model_state,
        trained.experiment.eval_batches(),
        mesh=runtime.make_mesh(),
        module_order=[cost.name for cost in costs],
    )
    scores = {name: value.total / value.count for name, value in found.scores.items()}
    curves = analysis.read_curves(trained.workdir.metrics)
    epochs, losses = analysis.thinned(curves.train_epoch, curves.train_loss, POINTS)
    return {
        "run": path.name,
        "variant": variant,
        "seed": config["seed"],
        "epochs": config["epochs"],
        "train_images": trained.workdir.read_facts()["train_images"],
        "top1": float(scores["top1"]),
        "top5": float(scores["top5"]),
        "test_loss": float(scores["loss"]),
        "train_loss": curves.final_loss,
        "train_curve": _rounded(epochs, losses),
        "top1_curve": _rounded(curves.eval_epoch, curves.eval_top1),
        "madds": sum(cost.total for cost in costs),
        "params": sum(cost.params for cost in costs),
        "seconds": curves.seconds,
        "routing": {
            layer: {
                "specificity": values.specificity,
                "chance": values.chance,
                "spread": values.spread,
                "mean": values.mean,
                "near_zero": values.near_zero,
                "near_one": values.near_one,
                "use": [round(share, 4) for share in values.use],
                "histogram": _histogram(found.routing[layer]),
            }
            for layer, values in _statistics(found).items()
        },
        **_sparse(path, overrides, trained, variant),
        "commit": one_run.read_record(path).commit,
        "machine": _machine(),
        "config": {key: value for key, value in config.items() if key != "data"},
    }


def _statistics(found: analysis.Collected) -> dict[str, analysis.LayerStatistics]:
    return {
        layer: analysis.layer_statistics(weights, found.labels)
        for layer, weights in found.routing.items()
    }


def _histogram(weights: np.ndarray) -> list[float]:
    """Shares of the weights (n, e) in twenty bins from 0 to 1."""
    return np.round(analysis.weight_histogram(weights, np.linspace(0, 1, 21)), 4).tolist()


def _sparse(
    path: Path, overrides: Sequence[str], trained: Trained, variant: str
) -> dict[str, dict[str, float]]:
    """Accuracy with k routing weights of each example, none of the networks trained so.

    "top_k" keeps the k largest; "mean_top_k" the mean kernel, and the k weights that deviate most
    from their mean. Of the networks alone that differ by their number of experts, and one seed,
    since each number is an evaluation.
    """
    found: dict[str, dict[str, float]] = {"top_k": {}, "mean_top_k": {}}
    if not variant.removeprefix("experts").isdecimal() or trained.config["seed"]:
        return found
    mesh = runtime.make_mesh()
    for candidate in candidates_of(trained, images=CALIBRATION_IMAGES):
        if candidate.top_k and candidate.experts == "float32":
            k = candidate.top_k
            found["mean_top_k"][str(k)] = score(trained, candidate.network, mesh)
            largest = load_trained(path, [*overrides, f"--config.model.routing.top_k={k}"])
            network = network_of(largest.config, largest.experiment.task, largest.state)
            found["top_k"][str(k)] = score(largest, network, mesh)
    return found


def _rounded(x: Any, y: Any) -> list[list[float]]:
    return [[round(float(a), 3), round(float(b), 4)] for a, b in zip(x, y, strict=True)]


def _machine() -> str:
    about = machine.describe()
    return f"{about['processor']}, {platform.machine()}, {about['device']}, jax {about['jax']}"
