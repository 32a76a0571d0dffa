"""What is exported: a trained network as a function of pictures, and what to know of it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, UInt8

INPUT = "images"

Function = Callable[[UInt8[Array, "b s s 3"]], Mapping[str, Array]]


@dataclasses.dataclass(frozen=True)
class Program:
    """A network with its weights inside.

    Attributes:
      function: pictures (b, s, s, 3) -> outputs by name, b first in each.
      layers: pictures -> the outputs of single layers by name, an OrderedDict in the order of the
        computation.
      until: pictures and the name of one of those -> its output, by a program that ends there.
      image_size: s, pixels.
      metadata: what JSON can hold; see `docs/deploy.md`.
    """

    function: Function
    layers: Function
    until: Callable[[Any, str], Array]
    image_size: int
    metadata: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A program that was read from a file, in the runtime of its format.

    Attributes:
      run: pictures uint8 (b, s, s, 3), any b -> outputs by name.
      metadata: as it was written.
      runtime: its name and version.
      any_size: whether a batch of a size that is new costs no compilation.
      one_by_one: whether pictures one after another take less time than together.
    """

    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    metadata: Mapping[str, Any]
    runtime: str
    any_size: bool = False
    one_by_one: bool = False
