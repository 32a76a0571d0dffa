"""cond_conv in float64, whose last digits have to agree, and in bfloat16, which rounds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from conv_cases import (
    CPP,
    NAMES,
    RUNNABLE,
    TOLERANCE,
    Case,
    assert_close,
    bound,
    loop_conv,
    runnable,
    scales,
    value_and_gradients,
)
from jax.test_util import check_grads

from condconv_jax import ops

METHODS = sorted(RUNNABLE)
FLOAT64 = sorted(set(RUNNABLE) - set(CPP))


@pytest.mark.parametrize("method", FLOAT64)
def test_check_grads_in_float64(method):
    with jax.enable_x64(True):
        case = runnable(method)
        op = jax.jit(bound(case, method))
        check_grads(op, case.arrays("float64"), 1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize("method", FLOAT64)
def test_agrees_in_float64_to_its_last_digits(method):
    with jax.enable_x64(True):
        case = runnable(method)
        arrays = case.arrays("float64")
        got, want, size = jax.jit(
            lambda *arrays: (
                value_and_gradients(bound(case, method), arrays),
                value_and_gradients(functools.partial(loop_conv, case=case), arrays),
                scales(bound(case, method), arrays),
            )
        )(*arrays)
        for name, g, w, s in zip(NAMES, got, want, size, strict=True):
            assert g.dtype == jnp.float64
            assert_close(g, w, s, TOLERANCE["float64"], name)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_is_float32_within_its_rounding(method):
    channels, kernel, keywords = RUNNABLE[method]
    case = Case((4, 6, 5, channels), kernel, 4, **keywords)

    @jax.jit
    def run(low, exact):
        op = bound(case, "mixture")
        return (
            value_and_gradients(bound(case, method), low),
            value_and_gradients(op, exact),
            scales(op, exact),
        )

    for seed in range(5):
        x, *rest = dataclasses.replace(case, seed=seed).arrays("bfloat16")
        exact = tuple(a.astype(jnp.float32) for a in (x, *rest))
        # Routing stays float32, as from `route`; experts arrive as float32 parameters.
        got, want, size = run((x, *exact[1:]), exact)
        assert [a.dtype for a in got] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
        for name, g, w, s in zip(NAMES, got, want, size, strict=True):
            assert_close(g, w, s, TOLERANCE["bfloat16"], name)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_sums_accumulate_in_float32(method):
    # 256 + 1 is 256 in bfloat16: a sum of 16 ones onto 256 survives in float32 only. A depthwise
    # kernel sums over its taps, the others over channels too.
    depthwise = method in ("depthwise", "native")
    taps, channels = ((4, 4), 1) if depthwise else ((1, 1), 17)
    if depthwise:
        x = jnp.ones((1, 4, 4, 1), jnp.bfloat16).at[0, 0, 0, 0].set(256)
        want = 256 + 15
    else:
        x = jnp.ones((1, 1, 1, channels), jnp.bfloat16).at[0, 0, 0, 0].set(256)
        want = 256 + 16
    experts = jnp.ones((2, *taps, channels, 1), jnp.bfloat16)
    routing = jnp.array([[0.5, 0.5]])
    y = ops.cond_conv(x, experts, routing, padding="VALID", method=method)
    assert float(y[0, 0, 0, 0]) == float(jnp.bfloat16(want))


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_products_ask_for_float32_sums(method):
    # A CPU accumulates in float32 whether asked to or not; accelerators do as they are told.
    x, experts, routing = runnable(method).arrays("bfloat16")
    program = str(jax.make_jaxpr(bound(runnable(method), method))(x, experts, routing))
    products = program.count("dot_general[")
    assert program.count("preferred_element_type=float32") == products
    expected = {"mixture": 0, "native": 0, "fused": 0, "pointwise": 2, "spatial": 2, "tiled": 2}
    assert products == expected.get(method, 1)
