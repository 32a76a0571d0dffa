import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from condconv_jax import nn

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 5, 4, 4))


def copied(layer):
    """The parameters of an NNX module as Linen's tree."""
    return nnx.to_pure_dict(nnx.state(layer, nnx.Param))


@pytest.mark.parametrize(
    "module",
    [
        nn.CondConv(6, (3, 3), 3),
        nn.CondConv(4, (3, 3), 3, feature_group_count=4, top_k=2),
        nn.CondConv(6, (3, 3), 0),
        nn.CondDense(6, 3),
        nn.SqueezeExcite(2),
    ],
    ids=["conv", "depthwise", "static", "dense", "se"],
)
def test_same_parameters_same_output_same_gradients(module):
    layer = nn.to_nnx(module, X[:1], key=KEY)
    params = copied(layer)
    want_shapes = jax.eval_shape(module.init, KEY, X)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, dict(want_shapes))

    def loss(params):
        return (module.apply({"params": params}, X) ** 2).sum()

    np.testing.assert_allclose(layer(X), module.apply({"params": params}, X), rtol=1e-5, atol=1e-5)
    got = nnx.to_pure_dict(nnx.jit(nnx.grad(lambda m: (m(X) ** 2).sum()))(layer))
    want = jax.jit(jax.grad(loss))(params)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-3 * np.abs(w).max()),
        got,
        want,
    )


def test_given_routing_and_recorded_routing():
    layer = nn.to_nnx(nn.CondDense(6, 3), X[:, 0, 0], key=KEY)
    routing = jax.random.normal(KEY, (3, 3))
    y = layer(X[:, 0, 0], routing, mutable=["routing"])
    want = nn.CondDense(6, 3).apply({"params": copied(layer)}, X[:, 0, 0], routing)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer.weights[...], routing)


def test_keys_differ():
    one, other = (nn.to_nnx(nn.CondDense(6, 3), X, key=jax.random.key(k)) for k in (0, 1))
    assert not np.allclose(copied(one)["kernel"], copied(other)["kernel"])
