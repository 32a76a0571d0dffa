"""What the config of a classification names: its images, their transforms and the task."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from condconv_jax import data
from condconv_jax.tasks import Classification

TASK = Classification

# Which keys of `config.data` each source takes, beside the path.
_SOURCE_KEYS = {"tfds": ("dataset", "image_key", "label_key"), "npz": ("labels",)}
_TRANSFORM_KEYS = (
    "crop",
    "padding",
    "flip",
    "area",
    "ratio",
    "central_fraction",
    "interpolation",
    "augment",
    "randaugment_layers",
    "randaugment_magnitude",
)


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a value out of its range."""
    if not 0 <= config["label_smoothing"] < 1:
        raise ValueError(
            f"config.label_smoothing is {config['label_smoothing']}; pass 0 (none) to below 1"
        )
    if config["mixup"] < 0:
        raise ValueError(f"config.mixup is {config['mixup']}; pass 0 (none) or more")


def check_evaluated(config: Mapping[str, Any], source: data.Source) -> None:
    """Does nothing: all pictures can be evaluated."""
    del config, source


def open_source(settings: Mapping[str, Any], split: str) -> data.Source:
    """Returns the images of a split of `config.data`."""
    own = {key: settings[key] for key in _SOURCE_KEYS.get(settings["name"], ())}
    return data.open_source(settings["name"], split, path=settings["path"], **own)


def unlabelled(image: np.ndarray) -> data.Sample:
    """Returns a picture as a sample of no class."""
    return {"image": image, "label": 0}


def make_transform(settings: Mapping[str, Any], *, train: bool) -> data.Transform:
    """Returns the transform of `config.data`."""
    options = {key: settings[key] for key in _TRANSFORM_KEYS}
    return data.make_transforms(settings["image_size"], train=train, **options)


def make_task(
    config: Mapping[str, Any], model: Any, mean: tuple[float, ...], std: tuple[float, ...], **_: Any
) -> Classification:
    """Returns the task over a network."""
    return Classification(
        model=model,
        image_size=config["data"]["image_size"],
        mean=mean,
        std=std,
        label_smoothing=config["label_smoothing"],
        mixup=config["mixup"],
    )
