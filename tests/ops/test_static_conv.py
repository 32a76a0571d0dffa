import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import (
    TOLERANCE,
    Case,
    assert_close,
    cases,
    runnable,
    scales,
    value_and_gradients,
    xla_conv,
)
from hypothesis import example, given
from jax.test_util import check_grads

from condconv_jax import ops
from condconv_jax.ops.conv import CONV_METHODS


@given(cases())
@example(Case((1, 6, 7, 3), (3, 3, 1, 3), 1, strides=2, feature_group_count=3))
@example(Case((3, 1, 1, 3), (1, 1, 3, 2), 1))
def test_methods_agree_with_xla(case):
    x, experts, _ = case.arrays()
    methods = [m for m in case.methods() if m in ("auto", "portable", *CONV_METHODS)]
    if case.feature_group_count != case.x_shape[3]:
        methods = [m for m in methods if m != "native"]
    op = functools.partial(ops.conv, **case.keywords)

    @jax.jit
    def run(*arrays):
        got = {m: value_and_gradients(functools.partial(op, method=m), arrays) for m in methods}
        plain = functools.partial(xla_conv, case=case)
        return got, value_and_gradients(plain, arrays), scales(plain, arrays)

    got, want, size = run(x, experts[0])
    for method, results in got.items():
        for g, w, s in zip(results, want, size, strict=True):
            assert_close(g, w, s, TOLERANCE["float32"], method)


@pytest.mark.parametrize("method", ["pointwise", "depthwise"])
def test_precision_and_gradients(method):
    case = runnable(method)
    op = functools.partial(ops.conv, method=method, **case.keywords)
    x, experts, _ = case.arrays("bfloat16")
    exact = x.astype(jnp.float32), experts[0].astype(jnp.float32)
    # The kernel arrives as a float32 parameter and is used in the dtype of x.
    y = jax.jit(op)(x, exact[1])
    assert y.dtype == jnp.bfloat16
    size = jax.jit(op)(*map(jnp.abs, exact))
    assert_close(y, jax.jit(op)(*exact), size, TOLERANCE["bfloat16"])
    with jax.enable_x64(True):
        x, experts, _ = case.arrays("float64")
        size = scales(op, (x, experts[0]))[0]
        assert_close(op(x, experts[0]), xla_conv(x, experts[0], case), size, TOLERANCE["float64"])
        check_grads(jax.jit(op), (x, experts[0]), 1, modes=["rev"], rtol=1e-6)


def test_golden():
    # (1 2 3) by (1 0 -1), not flipped, zeros beyond the ends: -2, 1 - 3, 2.
    x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    kernel = jnp.array([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
    for method in ("reference", "depthwise", "auto"):
        np.testing.assert_allclose(ops.conv(x, kernel, method=method)[0, 0, :, 0], [-2, -2, 2])


@pytest.mark.parametrize("runs", ["depthwise", "pointwise", "spatial"])
def test_no_examples(runs):
    x, experts, _ = runnable(runs, batch=0).arrays()
    op = functools.partial(ops.conv, **runnable(runs).keywords)
    y, pull_back = jax.vjp(op, x, experts[0])
    assert y.shape[0] == 0
    for gradient in pull_back(y):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_auto_on_a_cpu_leaves_only_dense_windows_to_xla():
    def has_convolution(case):
        x, experts, _ = case.arrays()
        op = functools.partial(ops.conv, **case.keywords)
        program = str(jax.make_jaxpr(lambda *a: value_and_gradients(op, a))(x, experts[0]))
        return "conv_general_dilated" in program

    assert not has_convolution(runnable("depthwise"))
    assert not has_convolution(runnable("pointwise"))
    assert has_convolution(runnable("spatial"))
    one_channel = Case((1, 4, 4, 1), (3, 3, 1, 2), 1)
    assert has_convolution(one_channel)  # a stem on grey images, not a depthwise layer


@pytest.mark.parametrize(
    ("runs", "method", "message"),
    [
        ("spatial", "depthwize", "conv: unknown method 'depthwize'.*did you mean 'depthwise'?"),
        ("spatial", "mixture", "conv: unknown method 'mixture'"),
        ("spatial", "pointwise", r"conv: method 'pointwise' cannot run a kernel \(3, 2, 2, 6\) in "
         "2 groups; use method='reference' or 'auto'"),
        ("pointwise", "depthwise", "conv: method 'depthwise' cannot run a kernel"),
    ],
)  # fmt: skip
def test_refusals(runs, method, message):
    case = dataclasses.replace(runnable(runs), num_experts=1)
    x, experts, _ = case.arrays()
    with pytest.raises(ValueError, match=message):
        ops.conv(x, experts[0], method=method, **case.keywords)
