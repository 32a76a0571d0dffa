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

__all__ = [
    "MAY_CHANGE",
    "Experiment",
    "build",
    "classification",
    "from_run",
    "make_model",
    "open_source",
    "train_options",
]
