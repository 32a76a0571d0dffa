"""What a method is."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array

from condconv_jax.ops.experts import mix_experts
from condconv_jax.ops.geometry import Geometry

Run = Callable[[Array, Array, Array, Geometry], Array]
Product = Callable[[Array, Array, Geometry], Array]


def refuse_nothing(channels: int, geometry: Geometry) -> str | None:
    """For a method that can do every convolution."""
    del channels, geometry
    return None


def refuse_groups(method: str) -> Callable[[int, Geometry], str | None]:
    """For a method that runs one group only: returns its refusal."""

    def refusal(channels: int, geometry: Geometry) -> str | None:
        if geometry.groups == 1:
            return None
        can = "depthwise" if geometry.is_depthwise(channels) else "spatial"
        return f"method {method!r} runs one group, not {geometry.groups}; use method={can!r}"

    return refusal


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to run a per-example convolution.

    Attributes:
      run: (x (b, h, w, c), experts (e, kh, kw, c/g, f), routing (b, e), geometry) -> (b, h', w', f)
        in the dtype of x; the experts may have another. Arguments are checked before.
      product: (x, kernels (b, kh, kw, c/g, f), geometry) -> (b, h', w', f): of kernels that are
        mixed already, as they are where only some of the experts are read.
      refusal: (channels, geometry) -> why this method cannot do it and which can, or None.
      skips_zeros: whether `run` does not read experts of weight 0, up to FEW_EXAMPLES.
    """

    run: Run
    product: Product
    refusal: Callable[[int, Geometry], str | None] = refuse_nothing
    skips_zeros: bool = False


def mix_then(
    product: Product, refusal: Callable[[int, Geometry], str | None] = refuse_nothing
) -> Method:
    """Returns the method that mixes every example's kernel and then runs the product."""

    def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
        return product(x, mix_experts(experts, routing, x.dtype), geometry)

    return Method(run, product, refusal)
