import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condconv_jax import ops

# Logits ln 3, 0 and -ln 3 for the pooled features (1, 2): each below as (1, 2) @ weight + bias.
LN3 = np.log(3.0)
POOLED = jnp.array([[1.0, 2.0]])
WEIGHT = jnp.array([[LN3, 2.0, 0.0], [0.0, -0.5, -LN3]], jnp.float32)
BIAS = jnp.array([0.0, -1.0, LN3], jnp.float32)


@pytest.mark.parametrize(
    ("activation", "temperature", "want"),
    [
        # 1 / (1 + 1/3), 1/2, 1 / (1 + 3)
        ("sigmoid", 1.0, [0.75, 0.5, 0.25]),
        # 3, 1, 1/3 over 13/3
        ("softmax", 1.0, [9 / 13, 3 / 13, 1 / 13]),
        ("relu", 1.0, [LN3, 0, 0]),
        # (3 - 1/3) / (3 + 1/3)
        ("tanh", 1.0, [0.8, 0, -0.8]),
        # Half the logits: sqrt 3 in the place of 3.
        ("sigmoid", 2.0, [1 / (1 + 3**-0.5), 0.5, 1 / (1 + 3**0.5)]),
        ("softmax", 2.0, [3 / (4 + 3**0.5), 3**0.5 / (4 + 3**0.5), 1 / (4 + 3**0.5)]),
        ("relu", 2.0, [LN3 / 2, 0, 0]),
        # Twice the logits: 9 in the place of 3, (9 - 1/9) / (9 + 1/9) = 80/82.
        ("tanh", 0.5, [80 / 82, 0, -80 / 82]),
        ("softmax", 0.5, [81 / 91, 9 / 91, 1 / 91]),
    ],
)
def test_route_golden(activation, temperature, want):
    route = functools.partial(ops.route, POOLED, WEIGHT, BIAS, activation=activation)
    routing = route(temperature=temperature)
    np.testing.assert_allclose(routing, [want], rtol=1e-5, atol=1e-6)
    # The temperature may be traced, for annealing.
    traced = jax.jit(
        lambda t: ops.route(POOLED, WEIGHT, BIAS, activation=activation, temperature=t)
    )
    np.testing.assert_allclose(traced(jnp.float32(temperature)), [want], rtol=1e-5, atol=1e-6)


def test_route_without_bias_and_by_default_is_a_sigmoid():
    # (1, 2) @ weight = ln 3, 1, -2 ln 3, and sigmoid(-2 ln 3) = 1 / (1 + 9).
    want = [0.75, 1 / (1 + np.exp(-1)), 0.1]
    np.testing.assert_allclose(ops.route(POOLED, WEIGHT), [want], rtol=1e-5)


def test_route_is_float32_whatever_comes_in():
    low = ops.route(*(a.astype(jnp.bfloat16) for a in (POOLED, WEIGHT, BIAS)))
    assert low.dtype == jnp.float32
    # Exact in bfloat16 all of them; their product, 1 + 2^-10, is not.
    logit = ops.route(
        jnp.array([[1.0, 2.0**-10]], jnp.bfloat16), jnp.ones((2, 1)), activation="relu"
    )
    assert float(logit[0, 0]) == 1 + 2.0**-10
    with jax.enable_x64(True):
        assert ops.route(jnp.ones((1, 2), jnp.float64), jnp.ones((2, 3))).dtype == jnp.float64


def test_route_asks_for_all_bits():
    # A CPU multiplies float32 in full whether asked to or not; accelerators do as they are told.
    program = str(jax.make_jaxpr(ops.route)(POOLED, WEIGHT, BIAS))
    assert program.count("dot_general[") == 1
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1


def test_keep_top_k_golden_and_ties():
    routing = jnp.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.5], [1.0, -3.0, -2.0], [0.2, 0.7, -0.7]])
    want = [[0, 0.9, 0], [0.5, 0, 0], [0, -3, 0], [0, 0.7, 0]]
    np.testing.assert_allclose(ops.keep_top_k(routing, 1), want)
    want = [[0, 0.9, 0.5], [0.5, 0.5, 0], [0, -3, -2], [0, 0.7, -0.7]]
    np.testing.assert_allclose(ops.keep_top_k(routing, 2), want)
    np.testing.assert_array_equal(ops.keep_top_k(routing, 3), routing)


@settings(deadline=None)  # each size compiles
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_keep_top_k_keeps_exactly_k_of_the_largest(e, k, seed):
    k = min(k, e)
    # Few distinct values, so that ties are common; none is 0.
    rng = np.random.default_rng(seed)
    routing = rng.choice([0.25, 0.5, 0.75], (4, e)).astype(np.float32)
    kept = np.asarray(ops.keep_top_k(jnp.asarray(routing), k))
    assert ((kept != 0).sum(axis=1) == k).all()
    np.testing.assert_array_equal(np.sort(kept)[:, ::-1][:, :k], np.sort(routing)[:, ::-1][:, :k])


def test_keep_top_k_gradient_passes_through_the_kept():
    routing = jnp.array([[0.1, 0.9, 0.5]])
    slope = jax.grad(lambda r: (ops.keep_top_k(r, 2) * jnp.array([[2.0, 3.0, 4.0]])).sum())(routing)
    np.testing.assert_allclose(slope, [[0, 3, 4]])


def test_keep_top_k_keeps_the_dtype():
    assert ops.keep_top_k(jnp.ones((2, 3), jnp.bfloat16), 2).dtype == jnp.bfloat16


@pytest.mark.parametrize("k", [0, 4, -1])
def test_keep_top_k_refuses(k):
    with pytest.raises(ValueError, match=f"keep_top_k: k is {k}; pass 1 to 3, the number of"):
        ops.keep_top_k(jnp.ones((2, 3)), k)


@pytest.mark.parametrize(
    ("arrays", "keywords", "message"),
    [
        (((2, 3), (3, 4)), {"activation": "sigmoids"}, "route: unknown activation.*'sigmoid'?"),
        (((2, 5), (3, 4)), {}, r"route: pooled is \(2, 5\) and weight \(3, 4\); pass \(b, c\)"),
        (((2, 4, 4, 3), (3, 4)), {}, r"route: pooled is \(2, 4, 4, 3\).*pooling each example"),
        (((2, 3), (3,)), {}, r"and weight \(3,\)"),
        (((2, 3), (3, 4), (3,)), {}, r"route: bias is \(3,\), weight \(3, 4\); pass one bias per"),
        (((2, 3), (3, 4)), {"temperature": 0}, "route: temperature is 0; pass a positive"),
        (((2, 3), (3, 4)), {"temperature": -0.5}, "route: temperature is -0.5"),
    ],
)
def test_route_refuses(unchecked, arrays, keywords, message):
    with pytest.raises(ValueError, match=message):
        ops.route(*map(jnp.ones, arrays), **keywords)
