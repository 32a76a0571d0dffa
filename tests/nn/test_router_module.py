import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import nn, ops
from condconv_jax.nn.router import global_average_pool

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 3, 5, 4))


def test_golden():
    # Pooled (2, 4); logits (2*0.5 - 1, 4*0.25) = (0, 1) at temperature 1, tanh.
    x = jnp.array([[[1.0, 2.0], [3.0, 6.0]]])
    params = {"kernel": jnp.array([[0.5, 0.0], [0.0, 0.25]]), "bias": jnp.array([-1.0, 0.0])}
    routing = nn.Router(2, activation="tanh").apply({"params": params}, x)
    np.testing.assert_allclose(routing, [[0, np.tanh(1)]], atol=1e-6)


def test_hidden_layer_previous_routing_and_top_k():
    previous = jax.random.normal(KEY, (2, 3))
    router = nn.Router(5, "softmax", 2.0, hidden=6, top_k=2, bias_init=linen.initializers.normal())
    params = router.init(KEY, X, previous)["params"]
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == {
        "hidden": {"kernel": (7, 6), "bias": (6,)},
        "kernel": (6, 5),
        "bias": (5,),
    }
    features = np.concatenate([np.asarray(X).mean(axis=(1, 2)), previous], axis=1)
    layer = jax.tree.map(np.asarray, params["hidden"])
    hidden = np.maximum(features @ layer["kernel"] + layer["bias"], 0)
    want = ops.route(
        jnp.asarray(hidden), params["kernel"], params["bias"], activation="softmax", temperature=2.0
    )
    got = router.apply({"params": params}, X, previous)
    np.testing.assert_allclose(got, ops.keep_top_k(want, 2), rtol=1e-4, atol=1e-6)
    assert ((got != 0).sum(axis=1) == 2).all()


def test_pooled_features_are_taken_as_they_are():
    router = nn.Router(3)
    variables = router.init(KEY, X)
    pooled = global_average_pool(X)
    np.testing.assert_allclose(pooled, np.asarray(X).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        router.apply(variables, pooled), router.apply(variables, X), rtol=1e-5
    )


def test_pools_and_routes_low_precision_in_float32():
    # The mean of 256 and 511 ones is 255 of 512 ... in bfloat16 the sum would stay at 256.
    x = jnp.ones((1, 512, 1), jnp.bfloat16).at[0, 0].set(256)
    pooled = global_average_pool(x)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, [[(256 + 511) / 512]], rtol=1e-6)
    router = nn.Router(2, hidden=3)
    variables = router.init(KEY, x)
    assert router.apply(variables, x).dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_products_ask_for_all_bits():
    # A CPU multiplies float32 in full whether asked to or not; accelerators do as they are told.
    router = nn.Router(2, hidden=3)
    variables = jax.eval_shape(router.init, KEY, X)
    program = str(jax.make_jaxpr(router.apply)(variables, X))
    assert program.count("dot_general[") == 2
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2


def test_kernels_are_drawn_as_keras_draws_them():
    """Uniformly up to sqrt(6 / (c + e)), which is a variance of 2 / (c + e)."""
    params = nn.Router(32).init(KEY, jnp.ones((1, 64)))["params"]
    largest = np.sqrt(6 / (64 + 32))
    # Of 2048 values one lies within 1 % of it, and the deviation of their variance is
    # sqrt(0.8 / 2048), 2 %.
    assert 0.99 * largest < np.abs(params["kernel"]).max() <= largest
    assert np.var(params["kernel"]) == pytest.approx(2 / (64 + 32), rel=0.1)
    np.testing.assert_array_equal(params["bias"], np.zeros(32))


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (nn.Router(0), "Router: num_experts is 0; pass at least 1"),
        (nn.Router(2, "sigmoit"), "route: unknown activation 'sigmoit'.*mean 'sigmoid'"),
        (nn.Router(2, temperature=0.0), "route: temperature is 0.0"),
        (nn.Router(2, top_k=5), "keep_top_k: k is 5; pass 1 to 2"),
    ],
)
def test_refusals(router, message):
    with pytest.raises(ValueError, match=message):
        router.init(KEY, X)
