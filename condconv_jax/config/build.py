"""A config's model, task, data and schedule, made and checked."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from condconv_jax import data, models
from condconv_jax.config import of_classification, of_detection
from condconv_jax.names import unknown_name
from condconv_jax.training import LoopSettings, make_optimizer, make_schedule

# What differs between the configs of tasks, each a module with the same functions.
TASKS = {"classification": of_classification, "detection": of_detection}
# The metric by which the best checkpoint of each task is kept.
BEST_METRICS = {name: parts.TASK.best_metric for name, parts in TASKS.items()}
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes.

    Attributes:
      task: loss and metrics over the network.
      train_source: training images; None where only evaluation was asked for.
      eval_source: evaluation images.
      class_names: by label.
      eval_batches: -> this process' batches of the evaluation set, padded and masked.
    """

    task: Any  # a `training.Task` with the network as `model`
    train_source: data.Source | None
    eval_source: data.Source
    class_names: tuple[str, ...]
    eval_batches: Callable[[], data.Batches]


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What only training needs.

    Attributes:
      optimizer: with its schedule.
      learning_rate: the schedule, step -> learning rate.
      train_batches: number of the first sample -> this process' endless batches.
      settings: of the loop.
    """

    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    train_batches: Callable[[int], data.Batches | data.ResidentBatches]
    settings: LoopSettings


def build(config: Mapping[str, Any], *, train: bool = True) -> Experiment:
    """Returns the task and data of a config.

    Args:
      config: as of `config.defaults`, nested mappings of plain values.
      train: whether to open the training images too.

    Raises:
      ValueError: naming a value that cannot be, and what can.
      FileNotFoundError: if the data is not there.
    """
    parts = _parts(config)
    _check_ranges(config)
    parts.check(config)
    settings = config["data"]
    train_source = _skipping(config, settings["train"]) if train else None
    eval_source = _skipping(config, settings["eval"])
    parts.check_evaluated(config, eval_source)
    if train_source is not None and train_source.class_names != eval_source.class_names:
        raise ValueError(
            f"config.data: {settings['train']!r} has {train_source.num_classes} classes, "
            f"{settings['eval']!r} {eval_source.num_classes}, of other names or in another order; "
            "use splits of one data set"
        )
    return Experiment(
        task=make_task(config, tuple(eval_source.class_names)),
        train_source=train_source,
        eval_source=eval_source,
        class_names=tuple(eval_source.class_names),
        eval_batches=functools.partial(
            data.eval_batches,
            eval_source,
            parts.make_transform(settings, train=False),
            batch_size=config["eval_batch_size"],
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=settings["threads"],
        ),
    )


def make_task(config: Mapping[str, Any], class_names: tuple[str, ...]) -> Any:
    """Returns the task of a config, over its network.

    Args:
      config: as `build`.
      class_names: by label.

    Raises:
      ValueError: naming a value that cannot be, and what can.
    """
    name = config["data"]["statistics"]
    if name not in data.STATISTICS:
        raise unknown_name("config.data.statistics", "statistics", name, data.STATISTICS)
    mean, std = data.STATISTICS[name]
    task = _parts(config).make_task(
        config,
        make_model(config["model"], len(class_names)),
        tuple(mean),
        tuple(std),
        class_names=class_names,
    )
    # Every option of the network is checked here, before anything is compiled or written.
    jax.eval_shape(task.init, jax.random.key(0))
    return task


def read_unlabelled(config: Mapping[str, Any], image: np.ndarray) -> np.ndarray:
    """Returns a picture as evaluation sees it.

    Args:
      config: as `build`.
      image: uint8 (h, w, 3).

    Returns:
      uint8 (s, s, 3).
    """
    parts = _parts(config)
    transform = parts.make_transform(config["data"], train=False)
    return transform(parts.unlabelled(image), np.random.default_rng(0))["image"]


def _parts(config: Mapping[str, Any]) -> Any:
    """The module of a config's task."""
    if config["task"] not in TASKS:
        raise unknown_name("config.task", "task", config["task"], TASKS)
    return TASKS[config["task"]]


def train_options(config: Mapping[str, Any], source: data.Source) -> TrainOptions:
    """Returns the optimiser, the training batches and the loop's settings of a config.

    Args:
      config: as `build`.
      source: the training images.

    Raises:
      ValueError: naming a value that cannot be, and what can.
    """
    batch_size, settings = config["batch_size"], config["data"]
    steps_per_epoch = len(source) / batch_size

    total_steps = max(1, round(config["epochs"] * steps_per_epoch))
    learning_rate = _schedule(config, total_steps, steps_per_epoch)
    options = dict(config["optimizer"])
    options["classifiers"] = make_model(config["model"], source.num_classes).classifiers()
    # Made here and not with the batches: what it refuses is refused before anything is written.
    transform = _parts(config).make_transform(settings, train=True)
    return TrainOptions(
        optimizer=make_optimizer(options.pop("name"), learning_rate, **options),
        learning_rate=learning_rate,
        train_batches=_train_batches(config, source, transform),
        settings=LoopSettings(
            total_steps=total_steps,
            batch_size=batch_size,
            epoch_size=len(source),
            log_every=config["log_every"],
            evaluate_every=max(1.0, config["eval_every_epochs"] * steps_per_epoch),
            checkpoint_every=max(1.0, config["checkpoint_every_epochs"] * steps_per_epoch),
            micro_batches=config["micro_batches"],
            average_decay=config["average_decay"],
        ),
    )


def _train_batches(
    config: Mapping[str, Any], source: data.Source, transform: Any
) -> Callable[[int], data.Batches | data.ResidentBatches]:
    """Number of the first sample -> endless batches."""
    if config["data"].get("on_device"):
        data.check_resident(transform)
        return lambda start: data.ResidentBatches(
            source, transform, batch_size=config["batch_size"], seed=config["seed"], start=start
        )
    return lambda start: data.train_batches(
        source,
        transform,
        batch_size=config["batch_size"],
        seed=config["seed"],
        start=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config["data"]["threads"],
    )


def _schedule(
    config: Mapping[str, Any], total_steps: int, steps_per_epoch: float
) -> optax.Schedule:
    schedule = config["schedule"]
    peak = schedule["learning_rate"]
    if schedule["per_examples"]:
        peak *= config["batch_size"] / schedule["per_examples"]
    return make_schedule(
        schedule["name"],
        peak,
        total_steps=total_steps,
        warmup_steps=round(schedule["warmup_epochs"] * steps_per_epoch),
        decay_rate=schedule["decay_rate"],
        decay_steps=schedule["decay_epochs"] * steps_per_epoch,
    )


def _check_ranges(config: Mapping[str, Any]) -> None:
    for key in ("batch_size", "eval_batch_size"):
        if config[key] < 1:
            raise ValueError(f"config.{key} is {config[key]}; pass at least 1")
    if not 0 <= config["seed"] < 2**32:
        raise ValueError(f"config.seed is {config['seed']}; pass 0 to 2**32 - 1")
    if config["data"]["image_size"] < 1:
        raise ValueError(
            f"config.data.image_size is {config['data']['image_size']}; pass at least 1 pixel"
        )
    for key in ("micro_batches", "expert_parts"):
        if config[key] < 1:
            raise ValueError(f"config.{key} is {config[key]}; pass at least 1")
    if not 0 <= config["average_decay"] < 1:
        raise ValueError(
            f"config.average_decay is {config['average_decay']}; pass 0 (none) to below 1"
        )
    for key in ("epochs", "eval_every_epochs", "checkpoint_every_epochs"):
        if config[key] <= 0:
            raise ValueError(f"config.{key} is {config[key]}; pass a positive number of epochs")
    per_examples = config["schedule"]["per_examples"]
    if per_examples < 0:
        raise ValueError(f"config.schedule.per_examples is {per_examples}; pass 0 (none) or more")
    if config["data"]["threads"] < 0:
        raise ValueError(f"config.data.threads is {config['data']['threads']}; pass 0 or more")


def make_model(options: Mapping[str, Any], num_classes: int) -> Any:
    """Returns the network of `config.model`.

    Raises:
      ValueError: for an unknown name or option.
    """
    options = dict(options)
    if options["dtype"] not in DTYPES:
        raise unknown_name("config.model.dtype", "dtype", options["dtype"], DTYPES)
    # A config file holds tuples, the config.json of a work directory lists.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return models.create(options.pop("name"), num_classes, **options)


def open_source(config: Mapping[str, Any], split: str) -> data.Source:
    """Returns the images of a split of `config.data`."""
    return _parts(config).open_source(config["data"], split)


def _skipping(config: Mapping[str, Any], split: str) -> data.SkippingSource:
    """The images of a split, of which so many may be damaged; each of those is named on stderr."""
    source = open_source(config, split)
    for remark in getattr(source, "remarks", ()):
        _report(f"note: {remark}")
    limit = config["data"]["max_corrupt"]
    return data.SkippingSource(source, limit, _report, limit_name="config.data.max_corrupt")


def _report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
