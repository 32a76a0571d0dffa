import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(autouse=True)
def quick_compiles():
    """Compiling is most of what these tests do: leave out LLVM's optimisations, eight times it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def float64():
    """Computing in float64: fourteen layers of ReLU6 turn float32's rounding into permilles."""
    with jax.enable_x64(True):
        yield jnp.float64
