"""Experts split over the mesh's axis "expert": equal to unsplit ones, and what is sent for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import bound, mesh, runnable
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_partition import assert_same, collectives, gradients, place

from condconv_jax import ops

BATCH, PARTS = PartitionSpec(("data", "expert")), PartitionSpec("expert")
SPECS = BATCH, PARTS, BATCH
# Experts over 2 sets' examples: more examples than experts are gathered for, fewer are mixed apart.
GATHERED, APART = 4, 16


def on(kind=AxisType.Auto):
    return mesh(2, 4, names=("data", "expert"), kind=kind)


@pytest.mark.parametrize("experts", [GATHERED, APART])
@pytest.mark.parametrize("method", ["reference", "mixture", "depthwise", "tiled"])
def test_equal_to_unsplit_experts(method, experts):
    case = runnable(method, batch=16, experts=experts)
    op, arrays = bound(case, method), case.arrays()
    run = functools.partial(gradients, op)
    want = jax.jit(run)(*arrays)
    with jax.set_mesh(on()):
        got = jax.jit(run)(*place(arrays, on(), SPECS))
        assert_same(got, want)
        # Gradients, too, are a part on each device.
        _, d_x, d_experts, _ = got
        assert d_experts.sharding.is_equivalent_to(NamedSharding(on(), PARTS), 5)
        assert d_x.sharding.is_equivalent_to(NamedSharding(on(), BATCH), 4)


def test_experts_meet_for_the_time_of_the_op():
    """All-gathered; of the gradient each device gets its part, summed over "data" then."""
    case = runnable("spatial", batch=16, experts=GATHERED)
    op, arrays = bound(case, "spatial"), case.arrays()
    with jax.set_mesh(on()):
        placed = place(arrays, on(), SPECS)
        assert collectives(op, *placed) == {"all-gather": 1}
        assert collectives(functools.partial(gradients, op), *placed) == {
            "all-gather": 1,
            "reduce-scatter": 1,
            "all-reduce": 1,
        }


def test_few_examples_are_mixed_where_the_experts_are():
    """Routing is gathered and kernels are reduce-scattered, never the experts."""
    case = runnable("spatial", batch=16, experts=APART)
    op, arrays = bound(case, "spatial"), case.arrays()
    with jax.set_mesh(on()):
        placed = place(arrays, on(), SPECS)
        assert collectives(op, *placed) == {"all-gather": 1, "reduce-scatter": 1}
        text = jax.jit(op).lower(*placed).compile().as_text()
    gathered = next(line for line in text.splitlines() if "all-gather(" in line)
    assert "f32[8,16]" in gathered  # weights of the 8 examples of a set, for 16 experts


def test_top_k_scale_and_bfloat16():
    case = runnable("spatial", batch=8, experts=APART)
    x, experts, routing = case.arrays()
    scale = jnp.linspace(0.5, 2.0, APART)
    op = functools.partial(ops.cond_conv, top_k=3, scale=scale, **case.keywords)
    want = op(x, experts, routing)
    with jax.set_mesh(on()):
        assert_same(jax.jit(op)(*place((x, experts, routing), on(), SPECS)), want)
        narrow = x.astype(jnp.bfloat16)
        got = jax.jit(op)(*place((narrow, experts, routing), on(), SPECS))
    assert got.dtype == jnp.bfloat16
    exact = op(narrow, experts, routing).astype(jnp.float32)
    # Two roundings to 8 bits, of the kernel, whose products are up to 40, and of the output.
    np.testing.assert_allclose(got.astype(jnp.float32), exact, rtol=0.02, atol=40 * 2.0**-8)


@pytest.mark.parametrize("experts", [GATHERED, APART])
def test_explicit_axes(experts):
    explicit = on(AxisType.Explicit)
    case = runnable("mapped", batch=16, experts=experts)
    run = functools.partial(gradients, bound(case, "mapped"))
    want = jax.jit(run)(*case.arrays())
    with jax.set_mesh(explicit):
        assert_same(jax.jit(run)(*place(case.arrays(), explicit, SPECS)), want)


def test_experts_that_do_not_divide_stay_whole():
    case = runnable("spatial", batch=16, experts=6)
    op, arrays = bound(case, "spatial"), case.arrays()
    with jax.set_mesh(on()):
        placed = place(arrays, on(), (BATCH, PartitionSpec(), BATCH))
        assert collectives(op, *placed) == {}
        assert_same(jax.jit(op)(*placed), jax.jit(op)(*arrays))


def test_dense_layers_and_mixing():
    arrays = jnp.ones((8, 3)), jnp.arange(48.0).reshape(4, 3, 4), jnp.arange(32.0).reshape(8, 4)
    run = functools.partial(gradients, ops.cond_dense)
    want, mixed = jax.jit(run)(*arrays), ops.mix_experts(arrays[1], arrays[2])
    with jax.set_mesh(on()):
        placed = place(arrays, on(), SPECS)
        assert_same(jax.jit(run)(*placed), want)
        assert collectives(ops.mix_experts, *placed[1:]) == {"all-gather": 1}
        assert_same(jax.jit(ops.mix_experts)(*placed[1:]), mixed)
