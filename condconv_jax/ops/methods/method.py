"""What a method is."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry


def refuse_nothing(channels: int, geometry: Geometry) -> str | None:
    """For a method that can do every convolution."""
    del channels, geometry
    return None


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to run a per-example convolution.

    Attributes:
      run: (x (b, h, w, c), experts (e, kh, kw, c/g, f), routing (b, e), geometry) -> (b, h', w', f)
        in the dtype of x, which the experts share. Arguments are checked before.
      refusal: (channels, geometry) -> why this method cannot do it and which can, or None.
    """

    run: Callable[[Array, Array, Array, Geometry], Array]
    refusal: Callable[[int, Geometry], str | None] = refuse_nothing
