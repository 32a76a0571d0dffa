"""top_k of the modules: few experts of one example, the same result as of many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import nn, ops

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 5, 4, 4))
ROUTING = jnp.tanh(jax.random.normal(jax.random.key(2), (4, 6)))


def cases():
    """A module and the op that it runs, each with 6 experts of which 2 are mixed."""
    conv = nn.CondConv(8, (3, 3), 6, strides=2, top_k=2)
    dense = nn.CondDense(5, 6, top_k=2)
    return {
        "conv": (conv, X, lambda x, w, r: ops.cond_conv(x, w, r, strides=2)),
        "dense": (dense, X[:, :2, 0], ops.cond_dense),
    }


def drawn(module, x, routing):
    """Parameters without a compiled `init`, and biases that are not zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, KEY, x, routing)["params"]
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape), a.dtype), shapes)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", cases())
def test_kernel_and_bias_are_mixed_from_the_kept_experts(name, batch):
    module, x, op = cases()[name]
    x, routing = x[:batch], ROUTING[:batch]
    params = drawn(module, x, routing)

    def want(params, routing):
        kept = ops.keep_top_k(routing, 2)
        bias = jnp.einsum("be,ef->bf", kept, params["bias"])
        y = op(x, params["kernel"], kept)
        return y + bias.reshape(batch, *(1,) * (y.ndim - 2), -1)

    def got(params, routing):
        return module.apply({"params": params}, x, routing, mutable=["routing"])

    @jax.jit
    def run(params, routing):
        y, pull_back, state = jax.vjp(got, params, routing, has_aux=True)
        expected, pull_expected = jax.vjp(want, params, routing)
        return (y, pull_back(jnp.sin(y))), (expected, pull_expected(jnp.sin(y))), state

    found, expected, state = run(params, routing)
    check = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)
    jax.tree.map(check, found, expected)
    np.testing.assert_array_equal(state["routing"]["weights"], ops.keep_top_k(routing, 2))


@pytest.mark.parametrize("name", cases())
def test_one_example_reads_no_other_kernel(name):
    module, x, _ = cases()[name]
    x, routing = x[:1], ROUTING[:1]
    params = drawn(module, x, routing)
    others = np.argsort(-np.asarray(routing[0]))[2:]
    poisoned = params | {"kernel": params["kernel"].at[others].set(jnp.nan)}
    apply = jax.jit(lambda params: module.apply({"params": params}, x, routing))
    got, want = apply(poisoned), apply(params)
    assert np.isfinite(want).all()
    np.testing.assert_array_equal(got, want)


def test_its_own_router_may_be_tanh():
    # All weights negative: those kept are the furthest from 0.
    module = nn.CondConv(8, (1, 1), 6, activation="tanh", top_k=2)
    params = {
        "kernel": jnp.cos(jnp.arange(6 * 4 * 8.0)).reshape(6, 1, 1, 4, 8),
        "bias": jnp.zeros((6, 8)),
        "router": {"kernel": jnp.zeros((4, 6)), "bias": jnp.linspace(-1, -6, 6)},
    }
    y, state = jax.jit(lambda x: module.apply({"params": params}, x, mutable=["routing"]))(X[:1])
    weights = state["routing"]["weights"]
    np.testing.assert_allclose(weights, [[0, 0, 0, 0, np.tanh(-5), np.tanh(-6)]], rtol=1e-6)
    want = ops.cond_conv(X[:1], params["kernel"], weights)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [0, 7])
def test_refusals(k):
    with pytest.raises(ValueError, match=f"k is {k}; pass 1 to 6"):
        jax.eval_shape(nn.CondConv(8, (1, 1), 6, top_k=k).init, KEY, X, ROUTING)
    with pytest.raises(ValueError, match=f"k is {k}; pass 1 to 6"):
        jax.eval_shape(nn.CondDense(8, 6, top_k=k).init, KEY, X, ROUTING)
