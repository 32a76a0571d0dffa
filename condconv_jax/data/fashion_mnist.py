"""The data set inside the package: 7,500 pictures of Fashion-MNIST, for demos and tests."""

import importlib.resources

import numpy as np

from condconv_jax.data.arrays import ArraySource, text_names
from condconv_jax.names import unknown_name

_FILE = ("embedded", "fashion_7500.npz")
_SPLITS = ("train", "test")


def open_fashion_mnist(split: str, *, path: str = "") -> ArraySource:
    """Returns the embedded Fashion-MNIST pictures, 28x28 grey as RGB, 10 classes.

    600 training and 150 test pictures per class, chosen from the complete set at random; any
    prefix of a multiple of 10 pictures is balanced. Scores on it are not Fashion-MNIST's.

    Args:
      split: "train" (6,000) or "test" (1,500).
      path: must stay empty; the pictures are part of the package.

    Raises:
      ValueError: if the split is another, or a path is given.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747; MIT licence, Zalando SE, in
      embedded/LICENSE-fashion-mnist.
    """
    if path:
        raise ValueError(
            f"open_fashion_mnist: got path {path!r}, but these pictures are inside the package; "
            f'leave path empty, or open your own copy with the source "npz" or "folder"'
        )
    if split not in _SPLITS:
        raise unknown_name("open_fashion_mnist", "split", split, _SPLITS)
    resource = importlib.resources.files(__package__).joinpath(*_FILE)
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return ArraySource(
            images=arrays[f"{split}_x"],
            labels=arrays[f"{split}_y"],
            class_names=text_names(arrays["names"]),
            name=f"fashion_mnist {split}",
        )
