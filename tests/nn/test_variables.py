import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.nn import CondConv, init_variables, variable_shapes

KEY = jax.random.key(0)
IMAGES = jnp.ones((1, 4, 6, 2))
TRACES = []


class Counting(nn.Module):
    """Notes each time that it is run or traced."""

    features: int
    without_hash: list | None = None

    @nn.compact
    def __call__(self, x):
        TRACES.append(self.features)
        return CondConv(self.features, (3, 3), 4)(x)


def test_the_same_values_as_init():
    model = Counting(5)
    want = model.init(KEY, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, init_variables(model, KEY, IMAGES), want)


@pytest.mark.parametrize("size", [(4, 6), [4, 6]])
def test_shapes_are_those_of_the_variables(size):
    found, want = variable_shapes(Counting(5), size, 2), Counting(5).init(KEY, IMAGES)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), want
    )
    assert variable_shapes(Counting(5), 4)["params"]["CondConv_0"]["kernel"].shape[-2:] == (3, 5)


def test_equal_networks_are_traced_once():
    TRACES.clear()
    for features in (7, 8):
        variable_shapes(Counting(features), 9)
        variable_shapes(Counting(features), (9, 9))
        init_variables(Counting(features), KEY, jnp.zeros((1, 9, 9, 3)))
    assert TRACES == [7, 8]


def test_a_network_without_a_hash_is_traced_each_time():
    TRACES.clear()
    for _ in range(2):
        variable_shapes(Counting(7, without_hash=[]), 11)
    assert TRACES == [7, 7]
