"""The C++ beyond what all methods share: odd sizes, second derivatives, mixing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import Case, bound

from condconv_jax import ops
from condconv_jax.ops.experts import mix_experts
from condconv_jax.ops.native import mix

pytestmark = pytest.mark.skipif(
    not ops.native.available(), reason="no C++ compiler here, or CONDCONV_NATIVE=0"
)

# Channels just over, at and under what the code works on at a time (16, and 64 to a task), rows
# longer than the eight results that are kept at a time, kernels wider than seven taps.
ODD = (
    Case((2, 5, 17, 65), (3, 3, 1, 65), 2, feature_group_count=65),
    Case((1, 9, 9, 64), (3, 3, 1, 64), 2, strides=2, feature_group_count=64),
    Case((3, 6, 11, 5), (2, 9, 1, 5), 2, padding=8, feature_group_count=5),
    Case((2, 7, 9, 17), (3, 8, 1, 34), 2, strides=(1, 3), feature_group_count=17),
    Case((1, 12, 13, 3), (3, 3, 1, 3), 2, strides=2, kernel_dilation=2, feature_group_count=3),
)


@pytest.mark.parametrize("case", ODD, ids=lambda case: str(case.x_shape))
def test_first_and_second_derivatives_are_those_of_the_portable_method(case):
    def first(method):
        return lambda *arrays: jnp.sum(jnp.sin(bound(case, method)(*arrays)))

    def second(method):
        gradient = jax.grad(first(method), (0, 1, 2))
        return lambda *arrays: sum(jnp.sum(jnp.cos(g)) for g in gradient(*arrays))

    for of in (first, second):
        got, want = (
            jax.jit(jax.value_and_grad(of(method), (0, 1, 2)))(*case.arrays())
            for method in ("native", "depthwise")
        )
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            # Second derivatives of hundreds of terms in float32.
            np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-4 * np.abs(w).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("batch", "experts", "values"), [(1, 1, 1), (2, 5, 1023), (4, 9, 2049)])
def test_mixing_is_that_of_the_values_widened(dtype, batch, experts, values):
    rng = np.random.default_rng(0)
    drawn = jnp.asarray(rng.integers(-127, 128, (experts, values)), dtype)
    routing = jnp.asarray(rng.standard_normal((batch, experts)), jnp.float32)
    got = jax.jit(mix.mix)(drawn, routing)
    assert got.dtype == jnp.float32
    want = np.asarray(routing, np.float64) @ np.asarray(drawn.astype(jnp.float32), np.float64)
    # Sums of at most 9 products of up to 127 * 3.
    np.testing.assert_allclose(got, want, atol=9 * 127 * 3 * 2**-23)


def test_experts_of_weight_0_are_not_read():
    experts = jnp.full((6, 40), jnp.nan).at[jnp.array([1, 4])].set(2.0)
    routing = jnp.zeros((1, 6)).at[0, 1].set(0.5).at[0, 4].set(-3.0)
    np.testing.assert_array_equal(mix.mix(experts, routing), jnp.full((1, 40), -5.0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_mixing(dtype):
    rng = np.random.default_rng(1)
    experts = jnp.asarray(rng.standard_normal((3, 4, 5)), dtype)
    routing = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    flat = lambda experts, routing: mix.mix(experts.reshape(3, 20), routing).reshape(2, 4, 5)
    got, want = (
        jax.vjp(f, experts, routing)[1](jnp.ones((2, 4, 5)))
        for f in (flat, functools.partial(mix_experts, dtype=jnp.float32))
    )
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g.astype(jnp.float32), w.astype(jnp.float32), rtol=1e-2)


def test_gradient_by_routing_of_integers():
    experts = jnp.array([[1, 2], [3, -4]], jnp.int8)
    gradient = jax.grad(lambda r: mix.mix(experts, r)[0, 1])(jnp.ones((1, 2)))
    np.testing.assert_array_equal(gradient, [[2.0, -4.0]])


def test_refusals(monkeypatch, unchecked):
    case = ODD[1]
    with jax.enable_x64(True), pytest.raises(ValueError, match="'native' has no float64; use"):
        bound(case, "native")(*case.arrays("float64"))
    monkeypatch.setattr("condconv_jax.ops.native.available", lambda: False)
    with pytest.raises(ValueError, match=r"'native' needs a CPU, a C\+\+ compiler .*'portable'"):
        bound(case, "native")(*case.arrays())
