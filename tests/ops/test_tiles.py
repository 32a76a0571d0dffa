"""Loops over tiles: the op itself in values and gradients, with sums that stay in float32."""

import functools

import jax
import jax.numpy as jnp
import pytest
from conv_cases import NAMES, TOLERANCE, Case, assert_close, mesh, scales, value_and_gradients
from jax.sharding import PartitionSpec

from condconv_jax.ops.geometry import make_geometry
from condconv_jax.ops.methods import spatial
from condconv_jax.ops.methods.tiles import divisor, over_examples, over_input_channels

CASE = Case((6, 5, 4, 6), (3, 2, 6, 5), 3, strides=(2, 1), padding=((2, 0), (0, 1)))


def plain(case=CASE):
    geometry = make_geometry("conv", case.x_shape, case.kernel_shape, **case.keywords)
    return functools.partial(spatial.METHOD.run, geometry=geometry)


def tiled(examples, channels, case=CASE):
    """As `tiled` nests them; 0 for no loop."""
    op = plain(case)
    op = over_input_channels(op, channels) if channels else op
    return over_examples(op, examples) if examples else op


TILES = [(1, 0), (3, 0), (0, 1), (0, 3), (6, 6), (2, 3)]


@pytest.mark.parametrize(("examples", "channels"), TILES)
def test_equal_to_the_op(examples, channels):
    arrays = CASE.arrays()

    @jax.jit
    def run(*arrays):
        results = (value_and_gradients(op, arrays) for op in (tiled(examples, channels), plain()))
        return *results, scales(plain(), arrays)

    for name, g, w, s in zip(NAMES, *run(*arrays), strict=True):
        assert_close(g, w, s, TOLERANCE["float32"], name)


@pytest.mark.parametrize(("examples", "channels"), [(2, 0), (0, 2)])
def test_inside_a_shard_map(examples, channels):
    # Two devices with six examples each; the caller has made the experts vary.
    x, experts, routing = CASE.arrays()
    arrays = jnp.concatenate([x, x[::-1]]), experts, jnp.concatenate([routing, 2 * routing])
    split, whole = PartitionSpec("data"), PartitionSpec()
    op = tiled(examples, channels)

    def on_device(x, experts, routing):
        return op(x, jax.lax.pcast(experts, "data", to="varying"), routing)

    on = mesh(2, 4, names=("data", "rest"))
    sharded = jax.shard_map(
        on_device, mesh=on, in_specs=(split, whole, split), out_specs=split, axis_names={"data"}
    )

    @jax.jit
    def run(*arrays):
        results = (value_and_gradients(op, arrays) for op in (sharded, plain()))
        return *results, scales(plain(), arrays)

    for name, g, w, s in zip(NAMES, *run(*arrays), strict=True):
        assert_close(g, w, s, TOLERANCE["float32"], name)


@pytest.mark.parametrize(("examples", "channels"), [(2, 0), (3, 2)])
def test_bfloat16_is_float32_within_its_rounding(examples, channels):
    low = CASE.arrays("bfloat16")

    @jax.jit
    def run(*low):
        exact = tuple(a.astype(jnp.float32) for a in low)
        got = value_and_gradients(tiled(examples, channels), low)
        return got, value_and_gradients(plain(), exact), scales(plain(), exact)

    got, want, size = run(*low)
    assert {a.dtype for a in got} == {jnp.dtype("bfloat16")}
    for name, g, w, s in zip(NAMES, got, want, size, strict=True):
        assert_close(g, w, s, TOLERANCE["bfloat16"], name)


def one_pixel(batch, channels):
    """A 1x1 layer of one output and one expert, all ones."""
    case = Case((batch, 1, 1, channels), (1, 1, channels, 1), 1)
    return case, *(jnp.ones_like(a) for a in case.arrays("bfloat16"))


def test_outputs_add_up_over_channels_in_float32():
    # 256 + 1 is 256 in bfloat16: sixteen tiles of one channel would leave it at 256.
    case, x, experts, routing = one_pixel(1, 17)
    y = tiled(0, 1, case)(x.at[..., 0].set(256), experts, routing)
    assert (y.dtype, float(y[0, 0, 0, 0])) == (jnp.bfloat16, 272)


def test_the_gradient_by_experts_adds_up_over_examples_in_float32():
    case, x, experts, routing = one_pixel(17, 1)
    op = lambda experts: tiled(1, 0, case)(x.at[0].set(256), experts, routing)
    y, pull_back = jax.vjp(op, experts)
    (d_experts,) = pull_back(jnp.ones_like(y))
    assert (d_experts.dtype, float(d_experts[0, 0, 0, 0, 0])) == (jnp.bfloat16, 272)


def test_the_gradient_by_routing_adds_up_over_channels_in_float32():
    case, x, experts, routing = one_pixel(1, 17)
    op = lambda routing: tiled(0, 1, case)(x.at[..., 0].set(256), experts, routing)
    y, pull_back = jax.vjp(op, routing)
    (d_routing,) = pull_back(jnp.ones_like(y))
    assert (d_routing.dtype, float(d_routing[0, 0])) == (jnp.bfloat16, 272)


@pytest.mark.parametrize(
    ("number", "at_least", "at_most", "want"),
    [
        (48, 8, 32, 24),  # of 1 2 3 4 6 8 12 16 24 48
        (64, 8, 32, 32),  # a limit may be reached
        (64, 8, 31.9, 16),
        (20, 6, 9, 10),  # 1 2 4 5 10 20: none from 6 to 9, the next is 10
        (1024, 128, 80, 128),
        (6, 8, 32, 6),  # fewer than the least: all at once
        (6, 8, 4, 6),
        (31, 8, 32, 31),
        (37, 8, 32, 37),  # a prime above the limit is one tile, ...
        (7, 1, 3, 1),  # ... unless one by one is allowed
        (7, 1, 7, 7),
        (12, 1, 0.3, 1),  # one kernel is larger than a tile
        (1, 128, 0.3, 1),
    ],
)
def test_divisor(number, at_least, at_most, want):
    assert divisor(number, at_least, at_most) == want
