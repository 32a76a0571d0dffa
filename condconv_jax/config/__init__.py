"""From a config to the objects that it names (floor 5); nothing below reads configs."""

from condconv_jax.config.build import (
    BEST_METRICS,
    Experiment,
    build,
    make_model,
    make_task,
    open_source,
    read_unlabelled,
    train_options,
)
from condconv_jax.config.defaults import DEFAULTS, MAY_CHANGE, classification, detection
from condconv_jax.config.from_run import completed, from_run
from condconv_jax.config.recipes import (
    imagenet,
    regularize_as_condconv,
    train_as_efficientnet,
    train_as_kornblith,
    train_as_ssd,
)

__all__ = [
    "BEST_METRICS",
    "DEFAULTS",
    "MAY_CHANGE",
    "Experiment",
    "build",
    "classification",
    "completed",
    "detection",
    "from_run",
    "imagenet",
    "make_model",
    "make_task",
    "open_source",
    "read_unlabelled",
    "regularize_as_condconv",
    "train_as_efficientnet",
    "train_as_kornblith",
    "train_as_ssd",
    "train_options",
]
