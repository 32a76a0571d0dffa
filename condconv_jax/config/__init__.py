"""From a config to the objects that it names (floor 5); nothing below reads configs."""

from condconv_jax.config.build import (
    Experiment,
    build,
    make_model,
    open_source,
    train_options,
)
from condconv_jax.config.defaults import MAY_CHANGE, classification
from condconv_jax.config.from_run import from_run
from condconv_jax.config.recipes import (
    imagenet,
    regularize_as_condconv,
    train_as_efficientnet,
    train_as_kornblith,
)

__all__ = [
    "MAY_CHANGE",
    "Experiment",
    "build",
    "classification",
    "from_run",
    "imagenet",
    "make_model",
    "open_source",
    "regularize_as_condconv",
    "train_as_efficientnet",
    "train_as_kornblith",
    "train_options",
]
