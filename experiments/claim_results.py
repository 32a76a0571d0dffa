"""What a finished run of a claim says: one line of JSON, with all that the report needs."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import one_run
from claim import Variant
from flax import linen

from condconv_jax import analysis, models, ops, runtime
from condconv_jax.cli.compressing import calibration_pictures, candidates_of, score
from condconv_jax.cli.flags import config_from_file
from condconv_jax.cli.network import Network, network_of
from condconv_jax.cli.trained import Trained, load_trained
from condconv_jax.runtime.atomic import write_text

REPOSITORY = Path(__file__).absolute().parent.parent
POINTS = 60  # of a training curve
CALIBRATION_IMAGES = 1024  # of training, over which routing weights are averaged
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
    found = _collect(trained, [cost.name for cost in costs])
    scores = _means(found)
    fit = _means(_collect(load_trained(path, [f"--config.data.eval={FIT_IMAGES}"])))
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
        **_with_less_routing(trained, variant),
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

    Settings that either does not know, as those of a later version, are not compared.
    """
    if "failed" in line:
        return False
    run = variant.run(line["seed"])
    config = config_from_file(str(REPOSITORY / run.config), run.arguments()[1:])
    now = _flat(_settings(config.to_dict()))
    then = _flat(line["config"])
    return any(then[key] != now[key] for key in then.keys() & now.keys())


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


def _collect(trained: Trained, order: Sequence[str] = ()) -> analysis.Collected:
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


def _with_less_routing(trained: Trained, variant: str) -> dict[str, dict[str, float]]:
    """Accuracy with less routing than a network was trained with, by how much is left.

    "mean_routing" has all weights at their means, for all pictures alike, in the "convolutions" or
    the "classifier" alone. "mean_top_k" has in every layer the mean kernel, and the k weights that
    deviate most from their mean, with k = 0 the mean kernel alone. "last_top_k" keeps the k
    largest weights of the classifier: in layers before it, too, kernels would shrink under
    statistics of batch norms that are those of all weights. Of the networks alone that differ by
    their number of experts, and one seed, since each number is an evaluation.
    """
    found: dict[str, dict[str, float]] = {"mean_routing": {}, "mean_top_k": {}, "last_top_k": {}}
    if not variant.removeprefix("experts").isdecimal() or trained.config["seed"]:
        return found
    mesh = runtime.make_mesh()
    network = network_of(trained.config, trained.experiment.task, trained.state)
    last = f"router_{max(network.task.model.conditional_layers())}"
    for part, chosen in (
        ("convolutions", lambda name: name != last),
        ("classifier", lambda name: name == last),
    ):
        found["mean_routing"][part] = score(trained, with_mean_routing(trained, chosen), mesh)
    found["mean_top_k"]["0"] = score(trained, with_mean_routing(trained), mesh)
    for candidate in candidates_of(trained, images=CALIBRATION_IMAGES):
        if candidate.top_k and candidate.experts == "float32":
            k = candidate.top_k
            found["mean_top_k"][str(k)] = score(trained, candidate.network, mesh)
            with linen.intercept_methods(functools.partial(_keep_largest, last, k)):
                found["last_top_k"][str(k)] = score(trained, network, mesh)
    return found


def _keep_largest(
    router: str, k: int, call: Callable[..., Any], args: Any, options: Any, context: Any
) -> Any:
    """Keeps the k largest weights of one router, as flax.linen.intercept_methods has it."""
    weights = call(*args, **options)
    if context.module.name == router and context.method_name == "__call__":
        return ops.keep_top_k(weights, k)
    return weights


def with_mean_routing(trained: Trained, chosen: Callable[[str], bool] = lambda _: True) -> Network:
    """Returns the network with routing weights at their means, for all pictures alike.

    Args:
      trained: a network with a router of sigmoids for each layer.
      chosen: of which routers, by name; of all by default.
    """
    network = network_of(trained.config, trained.experiment.task, trained.state)
    variables = {"params": network.params, **network.model_state}
    pictures = calibration_pictures(trained, CALIBRATION_IMAGES)
    means = models.mean_routing(network.task.model, variables, pictures)
    params = dict(network.params)
    for name, mean in means.items():
        if name.startswith("router") and chosen(name):
            fc = params[name]
            # Of a sigmoid, whose weights of 0 or 1 to the last digit have no finite logit.
            mean = np.clip(mean, 1e-7, 1 - 1e-7)
            params[name] = {"kernel": 0 * fc["kernel"], "bias": np.log(mean / (1 - mean))}
    return dataclasses.replace(network, params=jax.tree.map(jnp.asarray, params))


def _rounded(x: Any, y: Any) -> list[list[float]]:
    return [[round(float(a), 3), round(float(b), 4)] for a, b in zip(x, y, strict=True)]


def _machine(workdir: runtime.WorkDir) -> str:
    """What trained the run, not what evaluates it now."""
    about = workdir.read_done()["machine"]
    device = "" if about["backend"] == "cpu" else f", {about['device']}"
    return f"{about['processor']}{device}, jax {about['jax']}"
