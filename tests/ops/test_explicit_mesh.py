"""The ops where shardings are part of the types, and `vary_alike`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import bound, mesh, runnable, value_and_gradients
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from condconv_jax import ops
from condconv_jax.ops.partition import vary_alike

SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()
COLLECTIVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def place(arrays, on, specs):
    pairs = zip(arrays, specs, strict=True)
    return tuple(jax.device_put(a, NamedSharding(on, spec)) for a, spec in pairs)


def spec_of(array):
    return tuple(axis for axis in jax.typeof(array).sharding.spec if axis is not None)


@pytest.mark.parametrize(
    ("method", "shape", "names", "axes"),
    [
        ("pointwise", (8,), ("data",), "data"),
        ("tiled", (8,), ("data",), "data"),
        # The axis is whichever the type says; here the second or the first of two. Over "expert"
        # experts are split: tests/ops/test_expert_axis.py.
        ("pointwise", (4, 2), ("model", "rows"), "rows"),
        ("pointwise", (4, 2), ("data", "model"), "data"),
    ],
)
def test_split_inputs_stay_split_and_nothing_is_gathered(method, shape, names, axes):
    case = runnable(method, batch=8)
    arrays = case.arrays()
    run = lambda *arrays: value_and_gradients(bound(case, method), arrays)
    want = jax.jit(run)(*arrays)
    explicit = mesh(*shape, names=names, kind=AxisType.Explicit)
    split = PartitionSpec(axes)
    with jax.set_mesh(explicit):
        placed = place(arrays, explicit, (split, WHOLE, split))
        compiled = jax.jit(run).lower(*placed).compile()
        text = compiled.as_text()
        assert not [name for name in COLLECTIVES if f" {name}(" in text or f" {name}-st" in text]
        assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1
        got = compiled(*placed)
        y, dx, d_experts, d_routing = got
        # Outputs and gradients have the type of what they belong to.
        assert {spec_of(a) for a in (y, dx, d_routing)} == {(axes,)}
        assert spec_of(d_experts) == ()
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(jax.device_get(g), w, rtol=1e-5, atol=1e-4)


def test_routing_that_is_whole_is_split_with_the_inputs():
    case = runnable("spatial", batch=8)
    arrays = case.arrays()
    want = bound(case, "spatial")(*arrays)
    explicit = mesh(kind=AxisType.Explicit)
    with jax.set_mesh(explicit):
        placed = place(arrays, explicit, (SPLIT, WHOLE, WHOLE))
        compiled = jax.jit(bound(case, "spatial")).lower(*placed).compile()
        assert "all-gather" not in compiled.as_text()
        y = compiled(*placed)
        assert spec_of(y) == ("data",)
    np.testing.assert_allclose(jax.device_get(y), want, rtol=1e-5, atol=1e-5)


def test_experts_that_are_split_are_gathered_once():
    # Each device mixes from all experts: they are resharded, the activations are not.
    explicit = mesh(4, 2, names=("data", "model"), kind=AxisType.Explicit)
    case = runnable("pointwise", batch=8)
    arrays = case.arrays()
    want = bound(case, "pointwise")(*arrays)
    with jax.set_mesh(explicit):
        of_features = PartitionSpec(None, None, None, None, "model")
        placed = place(arrays, explicit, (SPLIT, of_features, SPLIT))
        compiled = jax.jit(bound(case, "pointwise")).lower(*placed).compile()
        assert compiled.as_text().count(" all-gather(") == 1
        y = compiled(*placed)
    np.testing.assert_allclose(jax.device_get(y), want, rtol=1e-5, atol=1e-5)


def test_each_device_applies_top_k_to_its_own_examples():
    case = runnable("pointwise", batch=8, experts=5)
    x, experts, routing = case.arrays()
    routing = routing.at[:, -1].set(0)  # chosen by none, and read by none
    op = functools.partial(bound(case, "pointwise"), top_k=2)
    want = op(x, experts, routing)
    explicit = mesh(kind=AxisType.Explicit)
    with jax.set_mesh(explicit):
        arrays = x, experts.at[-1].set(jnp.nan), routing
        y = jax.jit(op)(*place(arrays, explicit, (SPLIT, WHOLE, SPLIT)))
        assert spec_of(y) == ("data",)
    np.testing.assert_allclose(jax.device_get(y), want, rtol=1e-5, atol=1e-5)


def test_dense_layers():
    arrays = jnp.ones((8, 3)), jnp.arange(24.0).reshape(2, 3, 4), jnp.arange(16.0).reshape(8, 2)
    want = ops.cond_dense(*arrays)
    explicit = mesh(kind=AxisType.Explicit)
    with jax.set_mesh(explicit):
        y = jax.jit(ops.cond_dense)(*place(arrays, explicit, (SPLIT, WHOLE, SPLIT)))
        assert spec_of(y) == ("data",)
    np.testing.assert_allclose(jax.device_get(y), want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_vary_alike_changes_no_value_and_no_dtype(dtype):
    one = jnp.array([[1.5, -3], [100, 0]]).astype(dtype)
    other = jnp.array([jnp.nan, jnp.inf, 0])
    got = vary_alike(one, other, one[None])
    for g, w in zip(got, (one, other, one[None]), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, w)


def test_vary_alike_inside_a_shard_map():
    # A gradient by hand has the type of its argument: that of w, which only x makes vary, would
    # not without it.
    @jax.custom_vjp
    def product(x, w):
        return x * w[0]

    def backward(saved, dy):
        x, w = saved
        return dy * w[0], (dy * x).sum(keepdims=True)

    product.defvjp(lambda x, w: (product(x, w), (x, w)), backward)
    op = jax.shard_map(
        lambda x, w: product(*vary_alike(x, w)),
        mesh=mesh(),
        in_specs=(SPLIT, WHOLE),
        out_specs=SPLIT,
    )
    x = jnp.arange(8.0)
    y, pull_back = jax.vjp(jax.jit(op), x, jnp.array([3.0]))
    dx, dw = pull_back(jnp.ones_like(y))
    np.testing.assert_array_equal(y, 3 * x)
    np.testing.assert_array_equal(dx, [3] * 8)
    np.testing.assert_array_equal(dw, [28])  # 0 + ... + 7, over the devices


def test_vary_alike_costs_nothing():
    compiled = jax.jit(lambda a, b: vary_alike(a, b)).lower(jnp.ones(4), jnp.ones((3, 2))).compile()
    assert "multiply" not in compiled.as_text()
