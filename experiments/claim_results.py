"""What a finished run of a claim says: one line of JSON, with all that the report needs."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import one_run
from claim import Variant
from claim_less_routing import with_less_routing
from sweep import Run

from condconv_jax import analysis, runtime
from condconv_jax import config as configs
from condconv_jax.cli.flags import config_from_file
from condconv_jax.cli.network import network_of
from condconv_jax.cli.trained import Trained, load_trained
from condconv_jax.runtime.atomic import write_text

REPOSITORY = Path(__file__).absolute().parent.parent
POINTS = 60  # of a training curve
# Training pictures on which the fit is measured, as they are: in the training set of every run.
FIT_IMAGES = "train[:5000]"
COMPARED_BATCHES = 4  # of test pictures on which a mixture's outputs are compared
# What results do not depend on.
_ELSEWHERE = {"data.path", "data.threads"}


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


def result_of(path: Path, variant: str) -> dict[str, Any]:
    """Returns what a finished run says, evaluated as it ended.

    Args:
      path: its work directory.
      variant: name of its network, `claim.Variant.name`.

    Raises:
      FileNotFoundError: if it has no checkpoint.
    """
    trained = load_trained(path, [])
    config, task = trained.config, trained.experiment.task
    params = trained.state.params
    form = "mixture" if config["model"].get("method") == "mixture" else "conv"
    costs = analysis.layer_costs(task.model, task.image_size, form=form)
    found = collect(trained, [cost.name for cost in costs])
    scores = _means(found)
    fit = _means(collect(load_trained(path, [f"--config.data.eval={FIT_IMAGES}"])))
    curves = analysis.read_curves(trained.workdir.metrics)
    epochs, losses = analysis.thinned(curves.train_epoch, curves.train_loss, POINTS)
    return {
        "run": path.name,
        "variant": variant,
        "seed": config["seed"],
        "epochs": config["epochs"],
        "classes": task.model.num_classes,
        "train_images": trained.workdir.read_facts()["train_images"],
        "top1": float(scores["top1"]),
        "top5": float(scores["top5"]),
        "test_loss": float(scores["loss"]),
        "fit_top1": float(fit["top1"]),
        "fit_loss": float(fit["loss"]),
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
        "expert_rank": {m: round(rank, 3) for m, rank in analysis.expert_rank(params).items()},
        "expert_spread": {m: round(x, 3) for m, x in analysis.expert_spread(params).items()},
        **with_less_routing(trained, variant),
        **({"as_one": _as_one(path, trained)} if form == "mixture" else {}),
        "commit": one_run.read_record(path).commit,
        "machine": _machine(trained.workdir),
        "config": _settings(config),
    }


def failure_of(path: Path, variant: str, seed: int) -> dict[str, Any]:
    """Returns the line of a run that failed: the last line of its log, and nothing measured."""
    log = one_run.log_of(path).read_text(encoding="utf-8", errors="replace").splitlines()
    reason = log[-1][:300] if log else "no output"
    return {"run": path.name, "variant": variant, "seed": seed, "failed": reason}


def is_stale(line: Mapping[str, Any], variant: Variant) -> bool:
    """Returns whether a line is of other settings than its variant has now.

    A setting that came after the line had its default then (`condconv_jax.config.completed`). What
    only the line has is not compared: it is of a later version.
    """
    return "failed" not in line and _differs(line["config"], variant.run(line["seed"]))


def is_other(path: Path, run: Run) -> bool:
    """Returns whether a run was trained with other settings than it would be now."""
    return _differs(_settings(runtime.WorkDir(path).read_config()), run)


def _differs(then: Mapping[str, Any], run: Run) -> bool:
    config = config_from_file(str(REPOSITORY / run.config), run.arguments()[1:])
    now = _flat(_settings(config.to_dict()))
    before = _flat(_settings(configs.completed(then).to_dict()))
    return any(before.get(key) != value for key, value in now.items())


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config but for what results do not depend on, as JSON gives it back."""
    kept = {
        key: {k: v for k, v in value.items() if f"{key}.{k}" not in _ELSEWHERE}
        if isinstance(value, Mapping)
        else value
        for key, value in config.items()
    }
    return json.loads(json.dumps(kept))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def collect(trained: Trained, order: Sequence[str] = ()) -> analysis.Collected:
    """Returns scores and routing weights of a trained network on its evaluation pictures.

    Args:
      trained: it.
      order: of its modules, for the layers of `routing`.
    """
    return analysis.collect(
        trained.experiment.task,
        trained.state.params,
        trained.state.model_state,
        trained.experiment.eval_batches(),
        mesh=runtime.make_mesh(),
        module_order=order,
    )


def _means(found: analysis.Collected) -> dict[str, float]:
    return {name: float(value.total / value.count) for name, value in found.scores.items()}


def _as_one(path: Path, trained: Trained) -> dict[str, float]:
    """A trained mixture of convolutions against one convolution of mixed kernels, same weights.

    Returns:
      {"difference": largest of a logit over their largest size, "agreement": share of pictures of
      the same class, "images": how many}.
    """
    one = load_trained(path, ["--config.model.method=reference"])
    networks = [network_of(t.config, t.experiment.task, t.state) for t in (trained, one)]
    logits: list[list[np.ndarray]] = [[], []]
    for batch in itertools.islice(trained.experiment.eval_batches(), COMPARED_BATCHES):
        for found, network in zip(logits, networks, strict=True):
            predicted = network.task.predict(network.params, network.model_state, batch["image"])
            found.append(np.asarray(predicted))
    mixture, single = map(np.concatenate, logits)
    return {
        "difference": float(np.abs(mixture - single).max() / np.abs(mixture).max()),
        "agreement": float((mixture.argmax(-1) == single.argmax(-1)).mean()),
        "images": len(mixture),
    }


def _statistics(found: analysis.Collected) -> dict[str, analysis.LayerStatistics]:
    return {
        layer: analysis.layer_statistics(weights, found.labels)
        for layer, weights in found.routing.items()
    }


def _histogram(weights: np.ndarray) -> list[float]:
    """Shares of the weights (n, e) in twenty bins from 0 to 1."""
    return np.round(analysis.weight_histogram(weights, np.linspace(0, 1, 21)), 4).tolist()


def _rounded(x: Any, y: Any) -> list[list[float]]:
    return [[round(float(a), 3), round(float(b), 4)] for a, b in zip(x, y, strict=True)]


def _machine(workdir: runtime.WorkDir) -> str:
    """What trained the run, not what evaluates it now."""
    about = workdir.read_done()["machine"]
    device = "" if about["backend"] == "cpu" else f", {about['device']}"
    return f"{about['processor']}{device}, jax {about['jax']}"
