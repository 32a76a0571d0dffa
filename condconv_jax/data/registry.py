"""Sources by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from condconv_jax.data.fashion_mnist import open_fashion_mnist
from condconv_jax.data.folder import open_folder
from condconv_jax.data.generated_words import open_generated_words
from condconv_jax.data.npz import open_npz
from condconv_jax.data.source import Sample, SampleT, Source
from condconv_jax.data.speech_commands import open_speech_commands
from condconv_jax.data.splits import select
from condconv_jax.data.tfds import open_tfds
from condconv_jax.names import unknown_name

# Each opens one whole split: opener(split, *, path="", **options) -> Source.
SOURCES: Mapping[str, Callable[..., Source[Sample]]] = {
    "fashion_mnist": open_fashion_mnist,
    "folder": open_folder,
    "generated_words": open_generated_words,
    "npz": open_npz,
    "speech_commands": open_speech_commands,
    "tfds": open_tfds,
}


def open_source(name: str, split: str, *, path: str = "", **options: Any) -> Source[Sample]:
    """Returns the samples of a split, or of a part of it.

    Args:
      name: one of `SOURCES`.
      split: a split's name, with an optional slice in samples or percent ("train[:5400]",
        "train[90%:]"); several joined by "+" follow one another.
      path: where the data lie; what it means is the source's own.
      **options: the source's own, see its function in `SOURCES`.

    Raises:
      ValueError: if the name, the split or an option is unknown, the slice is malformed or
        empty, or the data are not what the source reads.
      FileNotFoundError: if there are no data at the path.

    Examples:
      >>> open_source("fashion_mnist", "train[:5400]").num_classes
      10
    """
    return open_from("open_source", SOURCES, name, split, path, options)


def open_from(
    function: str,
    sources: Mapping[str, Callable[..., Source[SampleT]]],
    name: str,
    split: str,
    path: str,
    options: Mapping[str, Any],
) -> Source[SampleT]:
    """Returns what `open_source` does, from any table of openers.

    Raises:
      ValueError: naming `function`, as `open_source`.
    """
    if name not in sources:
        raise unknown_name(function, "source", name, sources)
    opener = sources[name]
    known = [option for option in inspect.signature(opener).parameters if option != "split"]
    for option in options:
        if option not in known:
            raise unknown_name(function, f"option of the source {name!r}", option, known)
    return select(split, lambda whole: opener(whole, path=path, **options))
