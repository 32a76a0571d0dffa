"""A trained network, from its work directory or a checkpoint in it."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from condconv_jax import config as configs
from condconv_jax import nn, runtime, training
from condconv_jax.cli.flags import config_from_dict


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what it was trained for.

    Attributes:
      workdir: of its run.
      config: of its run, changed by the command line.
      experiment: task and evaluation data.
      state: parameters and model state, their moving averages where the run kept some; without
        the optimiser's.
    """

    workdir: runtime.WorkDir
    config: dict[str, Any]
    experiment: configs.Experiment
    state: training.TrainState

    def evaluate(
        self, task: Any = None, state: training.TrainState | None = None
    ) -> dict[str, float]:
        """Returns each metric on the run's evaluation data, on all devices of all processes.

        Args:
          task: instead of the run's, of the same network in another form.
          state: of that.
        """
        task, state = task or self.experiment.task, state or self.state
        mesh = runtime.make_mesh()
        with jax.set_mesh(mesh):
            state = jax.device_put(state, runtime.replicated(mesh))
            eval_fn = training.make_eval_fn(task, mesh)
            batches = training.together(self.experiment.eval_batches)
            return training.evaluate(task, eval_fn, state, batches, mesh)


def load_trained(path: str | Path, overrides: Sequence[str], *, best: bool = False) -> Trained:
    """Returns a trained network.

    Args:
      path: a work directory, its checkpoints folder or one step's folder.
      overrides: "--config.KEY=VALUE" arguments.
      best: take the checkpoint of the best evaluation rather than the last. Its score on the same
        images is an optimistic one.

    Raises:
      FileNotFoundError: if there is no checkpoint or no config.
      ValueError: for wrong overrides, a checkpoint of another network, or images of other classes.
    """
    workdir, folder, step = _find(path, best=best)
    config = config_from_dict(workdir.read_config(), overrides).to_dict()
    experiment = configs.build(config, train=False)
    workdir.check_facts({"class_names": list(experiment.class_names)})
    state = _load_state(folder, step, experiment.task, workdir)
    return Trained(workdir, config, experiment, state)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained network to be used on pictures of any origin.

    Attributes:
      workdir: of its run.
      config: of its run, changed by the command line.
      class_names: by label; numbers where the run has no names, as of converted weights.
      task: over the network.
      state: as of `Trained`.
    """

    workdir: runtime.WorkDir
    config: dict[str, Any]
    class_names: tuple[str, ...]
    task: Any
    state: training.TrainState


def load_predictor(path: str | Path, overrides: Sequence[str], *, best: bool = False) -> Predictor:
    """Returns a trained network without the data that it was trained on.

    Args and errors: as `load_trained`.
    """
    workdir, folder, step = _find(path, best=best)
    config = config_from_dict(workdir.read_config(), overrides).to_dict()
    names = workdir.read_facts().get("class_names")
    if names is None and config["task"] != "classification":
        raise ValueError(f"{workdir.facts} is missing, which has the names of the classes")
    if names is None:
        num_classes = load_weights(f"{folder}/{step}").model.num_classes
        names = [str(label) for label in range(num_classes)]
    task = configs.make_task(config, tuple(names))
    state = _load_state(folder, step, task, workdir)
    return Predictor(workdir, config, tuple(names), task, state)


def _load_state(
    folder: Path, step: int, task: Any, workdir: runtime.WorkDir
) -> training.TrainState:
    """The weights of a checkpoint, checked against the task's network."""
    tree = runtime.load_tree(folder, step, only=("step", *training.WEIGHTS))
    saved_params, saved_state = training.weights_of(tree)
    params, model_state = jax.eval_shape(task.init, jax.random.key(0))
    experts = workdir.read_facts().get("experts", "float32")
    if experts != "float32":
        params = jax.eval_shape(functools.partial(nn.compress_experts, dtype=experts), params)
    # Overrides may have asked for another network than was trained.
    params, _ = training.transfer(params, saved_params)
    # Without annealing its step has no meaning; with it, it must be that of training.
    known = {k: v for k, v in saved_state.items() if k in model_state or k != "schedule"}
    model_state, _ = training.transfer(model_state, known)
    return training.TrainState(tree["step"], params, model_state, ())


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a run, whose data need not be at hand.

    Attributes:
      workdir: of the run.
      config: of the run.
      step: of the checkpoint.
      model: the network.
      variables: its {"params": ..., "batch_stats": ...}, NumPy arrays; moving averages where the
        run kept some.
    """

    workdir: runtime.WorkDir
    config: dict[str, Any]
    step: int
    model: Any
    variables: dict[str, Any]


def load_weights(path: str | Path, *, best: bool = False) -> Weights:
    """Returns the network of a run and its weights.

    Args:
      path: as `load_trained`.
      best: likewise.

    Raises:
      FileNotFoundError: if there is no checkpoint or no config.
      ValueError: if neither a classifier nor the run's facts tell the number of classes.
    """
    workdir, folder, step = _find(path, best=best)
    config = config_from_dict(workdir.read_config(), []).to_dict()
    tree = runtime.load_tree(folder, step, only=training.WEIGHTS)
    params, model_state = training.weights_of(tree)
    if "classifier" in params:
        num_classes = params["classifier"]["bias"].shape[-1]
    elif names := workdir.read_facts().get("class_names"):
        num_classes = len(names)
    else:
        raise ValueError(
            f"load_weights: {folder}/{step} is of {config['model']['name']}, which has no "
            f"classifier by that name, and there is no {workdir.facts} to count the classes by"
        )
    model = configs.make_model(config["model"], num_classes)
    return Weights(workdir, config, step, model, {"params": params, **model_state})


def _find(path: str | Path, *, best: bool) -> tuple[runtime.WorkDir, Path, int]:
    """The work directory, the folder of checkpoints and the step that a path means."""
    folder, step = runtime.find_checkpoint(path)
    return runtime.WorkDir(folder.parent), folder, _best_step(path, folder) if best else step


def _best_step(path: str | Path, folder: Path) -> int:
    # A work directory may be named by a number too.
    if Path(path).absolute().parent == folder:
        raise ValueError(f"--best: {path} is one checkpoint; pass its work directory, or no --best")
    # What it was kept for is known to the task, and the task from its config alone.
    task = runtime.WorkDir(folder.parent).read_config()["task"]
    metric = configs.BEST_METRICS[task]
    with runtime.Checkpoints(folder, best_metric=metric, read_only=True) as checkpoints:
        step = checkpoints.best_step()
    if step is None:
        raise ValueError(
            f"--best: no checkpoint in {folder} was kept for its evaluation; leave out --best, or "
            "train with config.keep_best of at least 1"
        )
    return step
