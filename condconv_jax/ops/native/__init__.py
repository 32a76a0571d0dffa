"""What a CPU runs several times as fast in C++ as XLA compiles it."""

from condconv_jax.ops.native.build import available

__all__ = ["available"]
