"""Gradients of the depthwise methods, where inputs meet few taps, or none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import (
    NAMES,
    RUNNABLE,
    TOLERANCE,
    Case,
    assert_close,
    bound,
    scales,
    value_and_gradients,
    xla_conv,
)

from condconv_jax import ops

# By shifted products, and in C++ where a compiler is.
METHODS = [name for name in ("depthwise", "native") if name in RUNNABLE]


def depthwise(size, kernel, channels=2, multiplier=1, **keywords):
    return Case(
        (2, *size, channels),
        (*kernel, 1, channels * multiplier),
        2,
        feature_group_count=channels,
        **keywords,
    )


CASES = {
    # Every third row and column meets no tap.
    "stride 3, kernel 2": depthwise((8, 11), (2, 2), strides=3, padding="VALID"),
    "stride 3, kernel 2, SAME": depthwise((7, 10), (2, 2), strides=3),
    # The last column is read by no window.
    "odd sizes": depthwise((7, 9), (3, 2), strides=2, padding="VALID"),
    "odd sizes, SAME": depthwise((5, 7), (3, 3), strides=2),
    "one output": depthwise((5, 6), (3, 3), strides=(4, 5), padding="VALID"),
    # All taps meet rows and columns of even index, those of odd index none.
    "stride is dilation": depthwise((9, 8), (3, 2), strides=2, kernel_dilation=2, padding="VALID"),
    "stride 2, dilation 3": depthwise((11, 9), (3, 2), strides=2, kernel_dilation=3),
    "stride 3, dilation 2": depthwise((10, 9), (2, 3), strides=(3, 2), kernel_dilation=(2, 3)),
    "padding over kernel": depthwise((3, 4), (2, 2), strides=(1, 2), padding=((3, 4), (5, 0))),
    "channel multiplier": depthwise((6, 5), (2, 3), 3, 2, strides=(3, 1), padding=1),
}


@pytest.mark.parametrize("name", CASES)
def test_against_xla(name):
    case = CASES[name]

    def plain(x, experts, routing):
        kernels = jnp.einsum("be,e...->b...", routing, experts, precision="highest")
        return jnp.concatenate([xla_conv(x[b : b + 1], kernels[b], case) for b in range(2)])

    @jax.jit
    def run(*arrays):
        got = {method: value_and_gradients(bound(case, method), arrays) for method in METHODS}
        return got, value_and_gradients(plain, arrays), scales(plain, arrays)

    got, want, size = run(*case.arrays())
    for method, results in got.items():
        for label, g, w, s in zip(NAMES, results, want, size, strict=True):
            assert_close(g, w, s, TOLERANCE["float32"], f"{method}, {label}")


@pytest.mark.parametrize("method", METHODS)
def test_golden_stride_3_of_kernel_2(method):
    # x = 1 ... 7 by (1 10): windows (1 2) and (4 5); x2, x5 and the last are met by no tap.
    x, kernel = jnp.arange(1.0, 8).reshape(1, 1, 7, 1), jnp.array([1.0, 10]).reshape(1, 2, 1, 1)
    keywords = {"strides": (1, 3), "padding": "VALID", "method": method}
    conditional = jax.jit(functools.partial(ops.cond_conv, **keywords))
    y, pull_back = jax.vjp(conditional, x, kernel[None], jnp.array([[2.0]]))
    np.testing.assert_array_equal(y.ravel(), [2 * 21, 2 * 54])
    dx, d_experts, d_routing = pull_back(jnp.array([1.0, 100]).reshape(y.shape))
    np.testing.assert_array_equal(dx.ravel(), [2, 20, 0, 200, 2000, 0, 0])
    # Each tap meets its first input once, its second a hundred times: 1 + 400, 2 + 500.
    np.testing.assert_array_equal(d_experts.ravel(), [2 * 401, 2 * 502])
    np.testing.assert_array_equal(d_routing, [[21 + 5400]])
    # The static twin sums the kernel's gradient over the batch: here the same example twice.
    twice = jnp.concatenate([x, x])
    y, pull_back = jax.vjp(jax.jit(functools.partial(ops.conv, **keywords)), twice, kernel)
    dx, d_kernel = pull_back(jnp.array([1.0, 100, 1, 100]).reshape(y.shape))
    np.testing.assert_array_equal(dx[1].ravel(), [1, 10, 0, 100, 1000, 0, 0])
    np.testing.assert_array_equal(d_kernel.ravel(), [2 * 401, 2 * 502])


def test_gradients_of_bfloat16_add_up_in_float32():
    # 256 and then ones: in bfloat16 256 + 1 is 256.
    ones = lambda *shape: jnp.ones(shape, jnp.bfloat16)
    op = functools.partial(ops.cond_conv, method="depthwise")
    slope = lambda op, a: jax.jit(lambda a: jax.vjp(op, a)[1](jnp.ones_like(op(a)))[0])(a)
    # By the kernel of one tap, over sixteen more positions.
    x = ones(1, 1, 17, 1).at[0, 0, 0].set(256)
    got = slope(lambda experts: op(x, experts, jnp.ones((1, 1))), ones(1, 1, 1, 1, 1))
    assert (got.dtype, float(got.ravel()[0])) == (jnp.bfloat16, 272)
    # By one pixel that seventeen taps meet.
    experts = ones(1, 1, 17, 1, 1).at[0, 0, 0].set(256)
    padded = lambda x: op(x, experts, jnp.ones((1, 1)), padding=(0, 16))
    got = slope(padded, ones(1, 1, 1, 1))
    assert (got.dtype, float(got.ravel()[0])) == (jnp.bfloat16, 272)
