"""What a CPU runs several times as fast in C++ as XLA compiles it."""

import jax
from jaxtyping import Array

from condconv_jax.ops.native.build import available

__all__ = ["available", "require"]


def require(method: str, x: Array) -> None:
    """Checks that a method in C++ can run.

    Raises:
      ValueError: if x is wider than float32, or this machine has no compiled library.
    """
    if x.dtype.itemsize > 4:
        raise ValueError(f"method {method!r} has no {x.dtype}; use method='portable'")
    if jax.default_backend() != "cpu" or not available():
        raise ValueError(
            f"method {method!r} needs a CPU, a C++ compiler (c++, g++, clang++ or $CXX) and no "
            "CONDCONV_NATIVE=0; use method='portable'"
        )
