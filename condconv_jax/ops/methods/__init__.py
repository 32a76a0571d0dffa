"""The ways to run a per-example convolution, one file each; all give the same result."""

from condconv_jax.ops.methods import (
    depthwise,
    fused,
    mapped,
    mixture,
    native,
    pointwise,
    reference,
    spatial,
    tiled,
)
from condconv_jax.ops.methods.choose import CHOOSING, choose
from condconv_jax.ops.methods.method import Method

METHODS: dict[str, Method] = {
    "reference": reference.METHOD,
    "mixture": mixture.METHOD,
    "pointwise": pointwise.METHOD,
    "spatial": spatial.METHOD,
    "mapped": mapped.METHOD,
    "tiled": tiled.METHOD,
    "depthwise": depthwise.METHOD,
    "native": native.METHOD,
    "fused": fused.METHOD,
}

__all__ = ["CHOOSING", "METHODS", "Method", "choose"]
