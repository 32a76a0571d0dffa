"""per_example_conv: every method is the convolution of each example with its kernel."""

import dataclasses
import functools
import re

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import (
    RUNNABLE,
    TOLERANCE,
    Case,
    assert_close,
    cases,
    mesh,
    runnable,
    scales,
    value_and_gradients,
    xla_conv,
)
from hypothesis import example, given, settings
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from condconv_jax import ops
from condconv_jax.analysis import count_madds
from condconv_jax.ops.per_example import per_example_conv

# The methods without those that differ from another only in how they mix.
PRODUCTS = sorted(set(RUNNABLE) - {"mixture", "tiled", "fused"})
NAMES = ("value", "gradient by x", "gradient by kernels")
BATCH, WHOLE = PartitionSpec("data"), PartitionSpec()


def bound(case, method="auto"):
    return functools.partial(per_example_conv, method=method, **case.keywords)


def arrays(case, dtype="float32"):
    """x and as many kernels as examples."""
    one_each = dataclasses.replace(case, num_experts=case.x_shape[0])
    return one_each.arrays(dtype)[:2]


def assert_same(got, want):
    for g, w in zip(jax.device_get(got), jax.device_get(want), strict=True):
        # The same sums of at most a few hundred products, perhaps in another order.
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-4)


def one_by_one(x, kernels, case):
    rows = [xla_conv(x[b : b + 1], kernels[b], case) for b in range(x.shape[0])]
    return jnp.concatenate(rows)


@example(Case((1, 3, 4, 2), (3, 2, 2, 3), 1))
@example(Case((3, 5, 4, 2), (2, 3, 1, 4), 1, strides=(2, 1), feature_group_count=2))
@given(cases())
@settings(max_examples=3)
def test_methods_are_one_convolution_per_example_in_value_and_gradients(case):
    @jax.jit
    def run(*arrays):
        by_method = {m: value_and_gradients(bound(case, m), arrays) for m in case.methods()}
        equation = functools.partial(one_by_one, case=case)
        want = value_and_gradients(equation, arrays)
        return by_method, want, scales(equation, arrays)

    by_method, want, scale = run(*arrays(case))
    for method, results in by_method.items():
        for name, g, w, size in zip(NAMES, results, want, scale, strict=True):
            assert_close(g, w, size, TOLERANCE["float32"], f"{method}, {name}")


def test_golden():
    # (1 2 3) by (1 0 -1): -2, 1 - 3, 2; and by (0 2 0): twice itself.
    x = jnp.array([[1.0, 2.0, 3.0]] * 2).reshape(2, 1, 3, 1)
    kernels = jnp.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]).reshape(2, 1, 3, 1, 1)
    for method in ("reference", "spatial", "depthwise", "auto"):
        y = jax.jit(functools.partial(per_example_conv, method=method))(x, kernels)[:, 0, :, 0]
        np.testing.assert_allclose(y, [[-2, -2, 2], [2, 4, 6]])


@pytest.mark.parametrize("runs", ["spatial", "depthwise", "pointwise"])
def test_kernels_mixed_beforehand_are_cond_conv(runs):
    case = runnable(runs, experts=4)
    x, experts, routing = case.arrays()
    got = bound(case)(x, jnp.einsum("be,ehwcf->bhwcf", routing, experts))
    want = ops.cond_conv(x, experts, routing, **case.keywords)
    # Sums of at most a few hundred products of standard normal values.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runs", ["spatial", "depthwise"])
def test_gradients_in_float64(runs):
    with jax.enable_x64():
        case = runnable(runs, batch=2)
        check_grads(jax.jit(bound(case)), arrays(case, "float64"), 1, modes=["rev"], rtol=1e-6)


def test_computes_in_the_dtype_of_x():
    case = runnable("spatial")
    x, kernels = arrays(case)
    low = x.astype(jnp.bfloat16)
    y = bound(case)(low, kernels)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, bound(case)(low, kernels.astype(jnp.bfloat16)))


@pytest.mark.parametrize("runs", ["spatial", "depthwise", "pointwise"])
def test_no_examples(runs):
    case = runnable(runs, batch=0)
    y, pull_back = jax.vjp(bound(case), *arrays(case))
    assert y.shape[0] == 0
    for gradient in pull_back(y):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


@pytest.mark.parametrize("method", PRODUCTS)
def test_on_a_mesh_nothing_is_gathered_and_nothing_summed(method):
    case = runnable(method, batch=8)
    run = lambda *a: value_and_gradients(bound(case, method), a)
    given = arrays(case)
    want = jax.jit(run)(*given)
    with jax.set_mesh(mesh()):
        placed = jax.device_put(given, NamedSharding(mesh(), BATCH))
        compiled = jax.jit(run).lower(*placed).compile()
        assert not re.search(r"all-gather|all-reduce|all-to-all|permute\(", compiled.as_text())
        got = compiled(*placed)
        assert_same(got, want)
        assert all(a.sharding.is_equivalent_to(NamedSharding(mesh(), BATCH), a.ndim) for a in got)
    if method in ("spatial", "depthwise"):
        explicit = mesh(kind=AxisType.Explicit)
        with jax.set_mesh(explicit):
            # x split over the devices, every device with all kernels.
            x, kernels = (
                jax.device_put(a, NamedSharding(explicit, s))
                for a, s in zip(given, (BATCH, WHOLE), strict=True)
            )
            assert_same(jax.jit(run)(x, kernels), want)


class Wrapper(linen.Module):
    """A network of one convolution with kernels of ones."""

    shape: tuple[int, ...]
    groups: int
    method: str = "auto"

    @linen.compact
    def __call__(self, images):
        self.param("unused", linen.initializers.zeros, (1,))
        kernels = jnp.ones((images.shape[0], *self.shape))
        return per_example_conv(
            images, kernels, strides=2, feature_group_count=self.groups, method=self.method
        )


def test_madds_by_hand():
    # 2x3 outputs of 4x6 inputs; 5 channels that each sum 3*3*3 products, or 6 that sum 3*3.
    for form in ("conv", "mixture"):
        assert count_madds(Wrapper((3, 3, 3, 5), 1), (4, 6), form=form) == 2 * 3 * 5 * 27
        assert count_madds(Wrapper((3, 3, 1, 6), 3), (4, 6), form=form) == 2 * 3 * 6 * 9
        assert count_madds(Wrapper((1, 1, 3, 5), 1), (4, 6), form=form) == 2 * 3 * 5 * 3


@pytest.mark.parametrize(
    ("shape", "keywords", "message"),
    [
        ((3, 3, 4, 6), {}, r"per_example_conv: kernels are \(3, 3, 4, 6\); pass \(b, kh, kw, c/g"),
        ((2, 3, 3, 4, 6), {}, "per_example_conv: kernels are 2, x has 3 examples; pass one kernel "
         "per example, or use `conv`"),
        ((3, 3, 3, 2, 6), {}, "per_example_conv: inputs have 4 channels, the kernel takes 2"),
        ((3, 3, 3, 4, 6), {"padding": "FULL"}, "per_example_conv: padding is 'FULL'"),
        ((3, 3, 3, 4, 6), {"method": "spatail"}, "per_example_conv: unknown method 'spatail'.*did "
         "you mean 'spatial'?"),
        ((3, 3, 3, 4, 6), {"method": "pointwise"}, "per_example_conv: method 'pointwise' runs 1x1 "
         "kernels in one group, not 3x3 in 1; use method='spatial'"),
    ],
)  # fmt: skip
def test_refusals(shape, keywords, message, unchecked):
    with pytest.raises(ValueError, match=message):
        per_example_conv(jnp.ones((3, 5, 5, 4)), jnp.ones(shape), **keywords)
