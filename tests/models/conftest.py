import jax
import jax.numpy as jnp
import pytest


@pytest.fixture
def float64():
    """Computing in float64: fourteen layers of ReLU6 turn float32's rounding into permilles."""
    with jax.enable_x64(True):
        yield jnp.float64
