"""The ops that a processor runs several times as fast in C++ as XLA compiles them."""

from condconv_jax.ops.native.depthwise import available, forward

__all__ = ["available", "forward"]
