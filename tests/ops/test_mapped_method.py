"""mapped: its gradients, written by hand, where strides, padding and dilation are uneven."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import NAMES, TOLERANCE, Case, assert_close, bound, scales, value_and_gradients

from condconv_jax import ops
from condconv_jax.ops.geometry import make_geometry
from condconv_jax.ops.methods import mapped

CASES = {
    # Windows of 3 rows at 0, 2, 4 and 6 of ten, two of them zeros before: the last is not read.
    "uneven": Case((2, 8, 6, 3), (3, 2, 3, 4), 2, strides=2, padding=((2, 0), (0, 3))),
    "a row unread": Case((2, 6, 7, 3), (2, 3, 3, 4), 2, strides=(3, 2), padding="VALID"),
    # More padding than a kernel reaches: outputs of nothing, and a gradient that pads by less
    # than nothing.
    "far outside": Case((2, 3, 3, 2), (2, 1, 2, 3), 2, padding=((4, 3), (2, 5))),
    "dilated": Case(
        (2, 8, 7, 2), (3, 2, 2, 3), 2, padding=((1, 4), (3, 0)), kernel_dilation=(2, 3)
    ),
    "all at once": Case(
        (2, 9, 10, 2), (2, 3, 2, 3), 2, strides=(2, 3), padding=((0, 3), (5, 1)),
        kernel_dilation=(3, 2),
    ),
    "1x1": Case((2, 5, 5, 2), (1, 1, 2, 3), 2, strides=(2, 3), padding=((0, 1), (2, 0))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_is_the_reference_in_value_and_gradients(name):
    case = CASES[name]

    @jax.jit
    def run(*arrays):
        results = (value_and_gradients(bound(case, m), arrays) for m in ("mapped", "reference"))
        return *results, scales(bound(case, "mixture"), arrays)

    for label, g, w, s in zip(NAMES, *run(*case.arrays()), strict=True):
        assert_close(g, w, s, TOLERANCE["float32"], f"{name}, {label}")


def test_golden_stride_and_uneven_padding():
    # x = 1 2 3 by (1 10), stride 2, one zero before and none after: windows (0 1), (2 3).
    x, experts = jnp.array([1.0, 2, 3]).reshape(1, 1, 3, 1), jnp.array([1.0, 10])
    op = functools.partial(ops.cond_conv, strides=(1, 2), padding=((0, 0), (1, 0)), method="mapped")
    y, pull_back = jax.vjp(op, x, experts.reshape(1, 1, 2, 1, 1), jnp.array([[2.0]]))
    # 2 * (0 + 10), 2 * (2 + 30).
    np.testing.assert_array_equal(y.ravel(), [20, 64])
    dx, d_experts, d_routing = pull_back(jnp.array([1.0, 100]).reshape(y.shape))
    # x0 meets the tap of 10 in the first window, x1 and x2 both taps in the second.
    np.testing.assert_array_equal(dx.ravel(), [20, 200, 2000])
    # The taps meet 0 and 2, 1 and 3; the outputs without routing are 10 and 32.
    np.testing.assert_array_equal(d_experts.ravel(), [2 * 200, 2 * (1 + 300)])
    np.testing.assert_array_equal(d_routing, [[10 + 3200]])


def test_windows_of_one_example_at_a_time():
    # The windows of one example are 24 * 24 * 9 * 16 floats, 324 KiB; of all sixteen 5 MiB.
    case = Case((16, 24, 24, 16), (3, 3, 16, 16), 2)
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in case.arrays()]

    def memory(method):
        run = jax.jit(lambda *arrays: value_and_gradients(bound(case, method), arrays))
        return run.lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    assert memory("mapped") < 5 * 2**20 < memory("spatial")


@pytest.mark.parametrize(("size", "features", "want"), [(5, 24, True), (5, 25, False)])
def test_pays_where_windows_are_larger_than_a_kernel(size, features, want):
    geometry = make_geometry(
        "conv",
        (1, size, size, 3),
        (3, 3, 3, features),
        strides=1,
        padding="SAME",
        kernel_dilation=1,
        feature_group_count=1,
    )
    assert mapped.pays(features, geometry) is want


def test_refuses_groups_and_says_what_runs_them():
    x, routing = jnp.ones((2, 5, 5, 4)), jnp.ones((2, 3))
    message = "cond_conv: method 'mapped' runs one group, not 2; use method='spatial'"
    with pytest.raises(ValueError, match=message):
        ops.cond_conv(x, jnp.ones((3, 3, 3, 2, 4)), routing, feature_group_count=2, method="mapped")
    message = "cond_conv: method 'tiled' runs one group, not 4; use method='depthwise'"
    with pytest.raises(ValueError, match=message):
        ops.cond_conv(x, jnp.ones((3, 3, 3, 1, 4)), routing, feature_group_count=4, method="tiled")
