"""Experts in bfloat16 and int8: the same result as their values widened first."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import (
    RUNNABLE,
    TOLERANCE,
    assert_close,
    bound,
    runnable,
    scales,
    value_and_gradients,
)

from condconv_jax import ops

METHODS = sorted(RUNNABLE)
# Up to 4 examples widen each value while mixing, more of them beforehand.
BATCHES = (1, 2, 4, 5)


def narrow_experts(dtype, shape, seed=0):
    """Experts of every value of int8, or drawn ones in bfloat16."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(np.clip(np.round(60 * values), -128, 127) if dtype == "int8" else values,
                       dtype)  # fmt: skip


def weights(batch, e=4):
    return jnp.asarray(np.random.default_rng(1).standard_normal((batch, e)), jnp.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("batch", BATCHES)
def test_mixing_is_that_of_the_widened_values(batch, dtype):
    experts, routing = narrow_experts(dtype, (4, 3, 5)), weights(batch)
    exact = np.asarray(experts).astype(np.float64)
    want, size = (
        np.tensordot(r, e, 1)
        for r, e in ((np.float64(routing), exact), (np.abs(np.float64(routing)), np.abs(exact)))
    )
    mixed = ops.mix_experts(experts, routing, jnp.float32)
    assert mixed.dtype == jnp.float32
    assert_close(mixed, want, size, TOLERANCE["float32"])
    low = ops.mix_experts(experts, routing, jnp.bfloat16)
    assert low.dtype == jnp.bfloat16
    assert_close(low, want, size, TOLERANCE["bfloat16"])


@pytest.mark.parametrize("batch", BATCHES)
def test_golden_that_no_narrow_sum_holds(batch):
    # 127 + 2 is past int8, and 256 + 1 is 256 in bfloat16.
    routing = jnp.ones((batch, 2))
    mixed = ops.mix_experts(jnp.array([[127], [2]], jnp.int8), routing)
    assert mixed.dtype == jnp.float32
    np.testing.assert_array_equal(mixed, [[129]] * batch)
    experts = jnp.array([[256], [1]], jnp.bfloat16)
    np.testing.assert_array_equal(ops.mix_experts(experts, routing, "float32"), [[257]] * batch)
    # Left to themselves they keep their dtype.
    assert ops.mix_experts(experts, routing).dtype == jnp.bfloat16


@pytest.mark.parametrize("batch", [4, 5])
def test_weights_are_not_rounded_to_the_dtype_of_the_experts(batch):
    # A weight of 0.5 would be 0 as an int8, and 1 + 2^-10 is 1 in bfloat16.
    routing = jnp.full((batch, 1), 1 + 2.0**-10)
    for experts in (jnp.ones((1, 1), jnp.bfloat16), jnp.ones((1, 1), jnp.int8)):
        mixed = ops.mix_experts(experts, routing / 2, jnp.float32)
        np.testing.assert_array_equal(mixed, [[0.5 + 2.0**-11]] * batch)


@pytest.mark.parametrize("batch", [2, 5])
def test_gradients_of_mixing_bfloat16(batch):
    experts, routing = narrow_experts("bfloat16", (4, 6)), weights(batch)
    slope = np.cos(np.arange(batch * 6.0)).reshape(batch, 6).astype(np.float32)
    _, pull_back = jax.vjp(lambda *a: ops.mix_experts(*a, jnp.float32), experts, routing)
    d_experts, d_routing = pull_back(jnp.asarray(slope))
    exact, magnitude = np.float64(experts.astype(jnp.float32)), np.abs(np.float64(slope))
    assert d_routing.dtype == jnp.float32
    assert_close(d_routing, slope @ exact.T, magnitude @ np.abs(exact).T, TOLERANCE["float32"])
    # Summed in float32 and rounded once.
    assert d_experts.dtype == jnp.bfloat16
    want, size = np.float64(routing).T @ slope, np.abs(np.float64(routing)).T @ magnitude
    bound = 2.0**-8 * np.abs(want) + TOLERANCE["float32"] * size
    assert (np.abs(np.float64(d_experts.astype(jnp.float32)) - want) <= bound).all()


@pytest.mark.parametrize("batch", [2, 5])
def test_gradient_by_the_routing_of_int8_experts(batch):
    experts, routing = narrow_experts("int8", (4, 6)), weights(batch)
    slope = np.cos(np.arange(batch * 6.0)).reshape(batch, 6).astype(np.float32)
    mix = lambda routing: ops.mix_experts(experts, routing)
    (d_routing,) = jax.vjp(mix, routing)[1](jnp.asarray(slope))
    exact = np.float64(experts)
    size = np.abs(np.float64(slope)) @ np.abs(exact).T
    assert_close(d_routing, slope @ exact.T, size, TOLERANCE["float32"])


@pytest.mark.parametrize(("dtype", "batch"), [("int8", 2), ("bfloat16", 5)])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_them(method, dtype, batch):
    case = runnable(method, batch=batch, experts=3)
    x, experts, routing = case.arrays()
    experts, scale = narrow_experts(dtype, experts.shape), jnp.array([0.5, 0.02, 0.125])

    def op(x, routing, scale):
        return bound(case, method)(x, experts, routing, scale=scale)

    def plain(x, routing, scale, experts=experts):
        widened = experts.astype(jnp.float32) * scale.reshape(3, 1, 1, 1, 1)
        return bound(case, "reference")(x, widened, routing)

    @jax.jit
    def run(*arrays):
        positive = functools.partial(plain, experts=jnp.abs(experts.astype(jnp.float32)))
        results = (value_and_gradients(f, arrays) for f in (op, plain))
        return *results, scales(positive, arrays)

    names = ("value", "gradient by x", "by routing", "by scale")
    for name, g, w, s in zip(names, *run(x, routing, scale), strict=True):
        assert g.dtype == jnp.float32
        assert_close(g, w, s, TOLERANCE["float32"], f"{method}, {name}")


@pytest.mark.parametrize("batch", [2, 5])
def test_a_convolution_trains_bfloat16_experts(batch):
    case = runnable("spatial", batch=batch, experts=3)
    x, experts, routing = case.arrays()
    experts = experts.astype(jnp.bfloat16)

    @jax.jit
    def run(experts):
        op = lambda experts: bound(case, "spatial")(x, experts, routing)
        wide = experts.astype(jnp.float32)
        size = bound(case, "reference")
        _, pull_back = jax.vjp(lambda w: size(jnp.abs(x), w, jnp.abs(routing)), wide)
        y, want = value_and_gradients(op, (wide,))
        return value_and_gradients(op, (experts,))[1], want, pull_back(jnp.ones_like(y))[0]

    got, want, size = run(experts)
    assert got.dtype == jnp.bfloat16
    # The sum of float32, rounded once.
    error = np.abs(np.float64(got.astype(jnp.float32)) - np.float64(want))
    assert (error <= 2.0**-8 * np.abs(want) + 2 * TOLERANCE["float32"] * np.asarray(size)).all()


@pytest.mark.parametrize("top_k", [None, 1])
@pytest.mark.parametrize("batch", [1, 4])
def test_scale_golden(batch, top_k):
    # Experts 100 and -3 by scales 0.5 and 2 are 50 and -6; weights 1 and 0.25 of a pixel of 2:
    # 2 * (50 - 1.5) = 97, or without the smaller weight 100.
    experts = jnp.array([100, -3], jnp.int8).reshape(2, 1, 1)
    routing, scale = jnp.tile(jnp.array([[1, 0.25]]), (batch, 1)), jnp.array([0.5, 2.0])
    y = ops.cond_dense(jnp.full((batch, 1), 2.0), experts, routing, scale=scale, top_k=top_k)
    np.testing.assert_array_equal(y, [[97 if top_k is None else 100]] * batch)


def test_one_example_mixes_without_widening_all_experts_in_memory():
    # Eight experts of 64 Ki int8 are 2 MiB in float32, the mixed kernel 256 KiB.
    experts = jax.ShapeDtypeStruct((8, 2**16), jnp.int8)
    compiled = jax.jit(ops.mix_experts).lower(experts, jax.ShapeDtypeStruct((1, 8), "float32"))
    assert compiled.compile().memory_analysis().temp_size_in_bytes < 2**18
