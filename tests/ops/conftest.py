import jax
import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def quick_compiles():
    """Compiling is most of what these tests do: leave out LLVM's optimisations, eight times it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def unchecked():
    """Without the suite's shape checks, which would refuse a wrong call before we do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
