"""The ways to run a per-example convolution, one file each; all give the same result."""

from condconv_jax.ops.methods import depthwise, mixture, pointwise, reference, spatial
from condconv_jax.ops.methods.choose import choose
from condconv_jax.ops.methods.method import Method

METHODS: dict[str, Method] = {
    "reference": reference.METHOD,
    "mixture": mixture.METHOD,
    "pointwise": pointwise.METHOD,
    "spatial": spatial.METHOD,
    "depthwise": depthwise.METHOD,
}

__all__ = ["METHODS", "Method", "choose"]
