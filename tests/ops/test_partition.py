"""The ops on a mesh of eight CPU devices: equal to one device, and nothing gathered."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import RUNNABLE, bound, mesh, runnable, value_and_gradients
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from condconv_jax import ops

METHODS = sorted(RUNNABLE)
BATCH, WHOLE = PartitionSpec("data"), PartitionSpec()
COLLECTIVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter", "all-reduce")


def compiled(function, *arrays):
    """The program for these arrays, and how often it has each collective."""
    program = jax.jit(function).lower(*arrays).compile()
    text = program.as_text()
    found = {name: len(re.findall(rf"\b{name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return program, {name: count for name, count in found.items() if count}


def collectives(function, *arrays):
    return compiled(function, *arrays)[1]


def place(arrays, on, specs=(BATCH, WHOLE, BATCH)):
    return tuple(
        jax.device_put(a, NamedSharding(on, s)) for a, s in zip(arrays, specs, strict=True)
    )


def gradients(op, *arrays):
    return value_and_gradients(op, arrays)


def assert_same(got, want):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(jax.device_get(g), jax.device_get(w), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_equal_to_one_device_without_gathering(method):
    op = bound(runnable(method), method)
    arrays = runnable(method, batch=16).arrays()
    run = functools.partial(gradients, op)
    want = jax.jit(run)(*arrays)
    with jax.set_mesh(mesh()):
        placed = place(arrays, mesh())
        assert collectives(op, *placed) == {}
        # The experts' gradient is summed over the devices, in one go, and nothing else is.
        program, found = compiled(run, *placed)
        assert found == {"all-reduce": 1}
        got = program(*placed)
        assert_same(got, want)
        assert got[0].sharding.is_equivalent_to(NamedSharding(mesh(), BATCH), 4)
        assert_same(op(*arrays), want[0])  # eager, on arrays of one device


@pytest.mark.parametrize("method", METHODS)
def test_wherever_it_is_called_it_agrees(method):
    op = bound(runnable(method), method)
    run = functools.partial(gradients, op)
    arrays = runnable(method, batch=8).arrays()
    indivisible = runnable(method, batch=3).arrays()
    want, expected = jax.jit(run)(*arrays), jax.jit(run)(*indivisible)
    with jax.set_mesh(mesh()):
        assert_same(jax.jit(run)(*indivisible), expected)
        manual = jax.shard_map(op, in_specs=(BATCH, WHOLE, BATCH), out_specs=BATCH)
        assert_same(jax.jit(functools.partial(gradients, manual))(*arrays), want)
        checkpoint = functools.partial(gradients, jax.checkpoint(op))
        assert_same(jax.jit(checkpoint)(*arrays), want)
        if method != "reference":  # JAX has no rules for a vmap of a vmap of a convolution here
            several = jax.tree.map(lambda a: jnp.stack([a, a]), arrays)
            doubled = jax.tree.map(lambda a: jnp.stack([a, a]), want)
            assert_same(jax.jit(jax.vmap(run))(*several), doubled)
    explicit = mesh(kind=AxisType.Explicit)
    with jax.set_mesh(explicit):
        assert_same(jax.jit(run)(*place(arrays, explicit, (WHOLE,) * 3)), want)
        assert_same(jax.jit(run)(*place(arrays, explicit)), want)


def test_dense_layers_are_split_too():
    arrays = jnp.ones((8, 3)), jnp.arange(24.0).reshape(2, 3, 4), jnp.arange(16.0).reshape(8, 2)
    run = functools.partial(gradients, ops.cond_dense)
    want = jax.jit(run)(*arrays)
    with jax.set_mesh(mesh()):
        placed = place(arrays, mesh())
        assert collectives(ops.cond_dense, *placed) == {}
        assert collectives(run, *placed) == {"all-reduce": 1}
        assert_same(jax.jit(run)(*placed), want)


def test_batch_over_data_and_expert():
    both = mesh(4, 2, names=("data", "expert"))
    split = PartitionSpec(("data", "expert"))
    case = runnable("depthwise", batch=8)
    op, arrays = bound(case, "depthwise"), case.arrays()
    run = functools.partial(gradients, op)
    fewer = runnable("depthwise", batch=4).arrays()
    want, expected = jax.jit(run)(*arrays), jax.jit(run)(*fewer)
    with jax.set_mesh(both):
        placed = place(arrays, both, (split, PartitionSpec("expert"), split))
        got = jax.jit(run)(*placed)
        assert_same(got, want)
        assert got[0].sharding.is_equivalent_to(NamedSharding(both, split), 4)
        # 4 divides over data, not over both: split over data alone.
        few = place(fewer, both, (PartitionSpec("data"), WHOLE, PartitionSpec("data")))
        assert collectives(op, *few) == {}
        assert_same(jax.jit(run)(*few), expected)
        assert jax.jit(op)(*few).sharding.is_equivalent_to(
            NamedSharding(both, PartitionSpec("data")), 4
        )


def test_other_axes_do_not_split_the_batch():
    other = mesh(names=("model",))
    arrays = runnable("spatial", batch=8).arrays()
    op = bound(runnable("spatial"), "spatial")
    with jax.set_mesh(other):
        assert "shard_map" not in str(jax.make_jaxpr(op)(*arrays))
    with jax.set_mesh(mesh()):
        assert "shard_map" in str(jax.make_jaxpr(op)(*arrays))


def test_static_depthwise_convolution():
    case = runnable("depthwise", batch=8)
    x, experts, _ = case.arrays()
    arrays = x, experts[0]
    op = functools.partial(ops.conv, method="depthwise", **case.keywords)
    run = functools.partial(gradients, op)
    want = jax.jit(run)(*arrays)
    with jax.set_mesh(mesh()):
        placed = place(arrays, mesh(), (BATCH, WHOLE))
        assert collectives(op, *placed) == {}
        assert collectives(run, *placed) == {"all-reduce": 1}
        assert_same(jax.jit(run)(*placed), want)
        # In the caller's own shard_map the kernel is replicated and the inputs are not.
        manual = jax.shard_map(op, in_specs=(BATCH, WHOLE), out_specs=BATCH)
        assert_same(jax.jit(functools.partial(gradients, manual))(*arrays), want)


def test_inputs_replicated_where_routing_is_not():
    case = runnable("depthwise", batch=8)
    x, experts, routing = case.arrays()
    x = x[:1]
    op = bound(case, "depthwise")
    manual = jax.shard_map(op, mesh=mesh(), in_specs=(WHOLE, WHOLE, BATCH), out_specs=BATCH)
    plain = lambda x, experts, routing: op(jnp.repeat(x, 8, axis=0), experts, routing)
    got, want = (
        jax.jit(functools.partial(gradients, f))(x, experts, routing) for f in (manual, plain)
    )
    assert_same(got, want)
