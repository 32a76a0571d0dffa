"""Noise of experts: its distribution, and a gradient taken at other weights than the value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import NAMES, RUNNABLE, TOLERANCE, assert_close, bound, mesh, runnable, scales
from jax.sharding import NamedSharding, PartitionSpec
from test_partition import collectives

from condconv_jax import nn, ops
from condconv_jax.ops import ShakenRouting

KEY = jax.random.key(0)
METHODS = sorted(RUNNABLE)
DRAWS = 40_000
# Four standard errors, over which one of so few fixed draws would be once in 16,000 times.
SIGMAS = 4


def repeated(*weights):
    """The routing of as many equal examples as there are draws."""
    return jnp.broadcast_to(jnp.array(weights), (DRAWS, len(weights)))


def slope_of(y):
    return jnp.cos(1.7 * np.arange(y.size).reshape(y.shape)).astype(y.dtype)


# Dropping experts.


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_dropped_weights_are_zero_and_the_others_scaled_up(rate):
    routing = jax.random.normal(KEY, (200, 3))
    got = np.asarray(ops.drop_experts(routing, jax.random.key(1), rate))
    kept = got != 0
    np.testing.assert_array_equal(got[kept], np.asarray(routing / (1 - rate))[kept])
    assert kept.any(axis=0).all()
    assert not kept.all(axis=0).any()
    assert got.dtype == routing.dtype


def test_of_rate_0_nothing_is_dropped():
    routing = jax.random.normal(KEY, (5, 3))
    np.testing.assert_array_equal(ops.drop_experts(routing, KEY, 0.0), routing)


def test_drops_are_independent_and_keep_the_expectation():
    rate, routing = 0.3, repeated(0.2, -1.0, 3.0)
    kept = np.asarray(ops.drop_experts(routing, KEY, rate)) != 0
    # r m / (1 - rate) has the mean r where m has 1 - rate.
    error = SIGMAS * np.sqrt(rate * (1 - rate) / DRAWS)
    np.testing.assert_allclose(kept.mean(axis=0), 1 - rate, atol=error)
    np.testing.assert_allclose(
        ops.drop_experts(routing, KEY, rate).mean(axis=0),
        routing[0],
        atol=3.0 * error / (1 - rate),
    )
    # Independent ones are both kept with the product of their probabilities: two experts of one
    # example, and one expert of two examples.
    both = (1 - rate) ** 2
    error = SIGMAS * np.sqrt(both * (1 - both) / DRAWS)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs((kept[:, first] & kept[:, second]).mean() - both) < error
    assert abs((kept[0::2] & kept[1::2]).mean() - both) < error


@pytest.mark.parametrize("rate", [1.0, -0.1, 1.5])
def test_drop_refuses_rates_that_leave_nothing(rate):
    with pytest.raises(ValueError, match=rf"drop_experts: rate is {rate}; pass 0 \(none\) to bel"):
        ops.drop_experts(jnp.ones((2, 3)), KEY, rate)


def test_gradient_reaches_what_was_kept_only():
    routing = jnp.ones((4, 3))
    drop = lambda routing: ops.drop_experts(routing, KEY, 0.5)
    got = jax.grad(lambda routing: drop(routing).sum())(routing)
    np.testing.assert_array_equal(got, 2.0 * (np.asarray(drop(routing)) != 0))


# Shaking experts.


def test_coefficients_are_convex():
    routing = jax.random.uniform(KEY, (500, 5), minval=0.1)
    for shaken in ops.shake_experts(routing, jax.random.key(1)):
        coefficients = np.asarray(shaken / routing) / 5
        assert (coefficients >= 0).all()
        np.testing.assert_allclose(coefficients.sum(axis=1), 1, rtol=1e-6)


def test_of_one_expert_nothing_is_shaken():
    routing = jax.random.normal(KEY, (4, 1))
    for shaken in ops.shake_experts(routing, jax.random.key(1)):
        np.testing.assert_array_equal(shaken, routing)


@pytest.mark.parametrize("experts", [2, 4])
def test_coefficients_are_uniform_on_the_simplex(experts):
    """One coefficient of a uniform point is below a with 1 - (1 - a)^(E - 1): itself, for two.

    Two coefficients have the covariance -1 / (E^2 (E + 1)), each the variance E - 1 times that.
    """
    shaken = ops.shake_experts(repeated(*[1.0] * experts), KEY)
    for coefficients in (np.asarray(s, np.float64) / experts for s in shaken):
        for expert in range(experts):
            probability = 1 - (1 - np.sort(coefficients[:, expert])) ** (experts - 1)
            ranks = (np.arange(DRAWS) + 0.5) / DRAWS
            # Kolmogorov and Smirnov: exceeded by one sample of 2,500 of the right distribution.
            assert np.abs(probability - ranks).max() < 2.0 / np.sqrt(DRAWS)
        unit = 1 / (experts**2 * (experts + 1))
        want = unit * (experts * np.eye(experts) - 1)
        # Each product is below 1 / 4, and so is its standard deviation.
        np.testing.assert_allclose(np.cov(coefficients.T), want, atol=SIGMAS / 4 / np.sqrt(DRAWS))
        if experts == 2:
            quartiles = np.quantile(coefficients[:, 0], (0.25, 0.5, 0.75))
            np.testing.assert_allclose(quartiles, (0.25, 0.5, 0.75), atol=SIGMAS / 2 / DRAWS**0.5)


def test_the_expectation_of_both_is_the_routing():
    routing = repeated(0.2, -1.0, 3.0)
    for shaken in ops.shake_experts(routing, KEY):
        # E a has the variance (E - 1) / (E + 1) = 1/2.
        error = SIGMAS * np.sqrt(0.5 / DRAWS) * np.abs(routing[0])
        assert (np.abs(shaken.mean(axis=0) - routing[0]) < error).all()


def test_forward_and_backward_and_examples_are_drawn_apart():
    forward, backward = (np.asarray(s) for s in ops.shake_experts(repeated(1.0, 1.0), KEY))
    u, v = forward[:, 0] / 2, backward[:, 0] / 2
    # Uniform variables of variance 1/12: their correlation has the standard error 1 / sqrt(n).
    assert abs(np.corrcoef(u, v)[0, 1]) < SIGMAS / np.sqrt(DRAWS)
    assert abs(np.corrcoef(u[0::2], u[1::2])[0, 1]) < SIGMAS / np.sqrt(DRAWS / 2)
    assert len(np.unique(u)) > 0.9 * DRAWS
    again = ops.shake_experts(repeated(1.0, 1.0), KEY)
    np.testing.assert_array_equal(again.forward, forward)
    assert not np.allclose(ops.shake_experts(repeated(1.0, 1.0), jax.random.key(1))[0], forward)


# What is mixed by a shaken routing.


def test_golden_of_one_input_and_two_experts():
    # y = (1 * 2 + 0 * 3) x = 2 x; backwards dy/dx = 1/2 * 2 + 1/4 * 3, dy/dW = (1/2, 1/4) x,
    # dy/dr = (2, 3) x, for the backward weights alone.
    x, experts = jnp.full((1, 1), 10.0), jnp.array([2.0, 3.0]).reshape(2, 1, 1)
    shaken = ShakenRouting(jnp.array([[1.0, 0.0]]), jnp.array([[0.5, 0.25]]))
    apply = functools.partial(ops.apply_routing, ops.cond_dense)
    y, pull = jax.vjp(apply, x, experts, shaken)
    assert float(y[0, 0]) == 20
    d_x, d_experts, d_routing = pull(jnp.ones((1, 1)))
    assert float(d_x[0, 0]) == 1.75
    np.testing.assert_array_equal(d_experts.ravel(), [5.0, 2.5])
    np.testing.assert_array_equal(d_routing.forward, [[0.0, 0.0]])
    np.testing.assert_array_equal(d_routing.backward, [[20.0, 30.0]])


def test_a_plain_routing_is_applied_as_it_is():
    x, experts, routing = runnable("spatial").arrays()
    op = bound(runnable("spatial"), "spatial")
    apply = functools.partial(ops.apply_routing, op)
    assert str(jax.make_jaxpr(apply)(x, experts, routing)) == str(
        jax.make_jaxpr(op)(x, experts, routing)
    )


def shaken_case(method, batch=3):
    """op, x, experts, the routing, and its coefficients of the forward and the backward pass."""
    case = runnable(method, batch=batch, experts=3)
    x, experts, routing = case.arrays()
    ones = jnp.ones_like(routing)
    return bound(case, method), x, experts, routing, ops.shake_experts(ones, jax.random.key(3))


def value_and_gradients(op, x, experts, routing, coefficients):
    """Of the whole way from the routing before it is shaken, and of the shaken one."""

    def whole(x, experts, routing):
        shaken = ShakenRouting(coefficients.forward * routing, coefficients.backward * routing)
        return ops.apply_routing(op, x, experts, shaken)

    y, pull = jax.vjp(whole, x, experts, routing)
    return y, *pull(slope_of(y) * jnp.ones_like(y))


def expected(op, x, experts, routing, coefficients):
    """By the op itself, at the forward weights and at the backward ones."""
    y = op(x, experts, coefficients.forward * routing)
    _, pull = jax.vjp(op, x, experts, coefficients.backward * routing)
    d_x, d_experts, d_routing = pull(slope_of(y))
    return y, d_x, d_experts, coefficients.backward * d_routing


@pytest.mark.parametrize("method", METHODS)
def test_value_at_forward_and_gradients_at_backward(method):
    op, *arrays = shaken_case(method)
    got = jax.jit(functools.partial(value_and_gradients, op))(*arrays)
    want = jax.jit(functools.partial(expected, op))(*arrays)
    # The coefficients are below 3, the number of experts.
    rounding = jax.jit(functools.partial(scales, op))(tuple(arrays[:3]))
    for name, g, w, scale in zip(NAMES, got, want, rounding, strict=True):
        assert_close(g, w, 9 * scale, TOLERANCE["float32"], f"{method}, {name}")
    # Taken where the value is, they would be others.
    x, experts, routing, coefficients = arrays
    same = coefficients._replace(backward=coefficients.forward)
    naive = jax.jit(functools.partial(expected, op))(x, experts, routing, same)
    for name, g, w in zip(NAMES[1:], got[1:], naive[1:], strict=True):
        assert not np.allclose(g, w, rtol=1e-3), name


@pytest.mark.parametrize("method", METHODS)
def test_on_a_mesh_it_is_the_same_and_gathers_nothing(method):
    op, x, experts, routing, coefficients = shaken_case(method, batch=8)
    run = functools.partial(value_and_gradients, op)
    forward = lambda *arrays: run(*arrays)[0]
    want = jax.jit(run)(x, experts, routing, coefficients)
    with jax.set_mesh(mesh()):
        split, whole = (NamedSharding(mesh(), PartitionSpec(*names)) for names in (("data",), ()))
        placed = (
            *(jax.device_put(a, s) for a, s in ((x, split), (experts, whole), (routing, split))),
            jax.device_put(coefficients, split),
        )
        assert collectives(forward, *placed) == {}
        # The experts' gradient is summed over the devices, and nothing else is.
        assert collectives(run, *placed) == {"all-reduce": 1}
        got = jax.jit(run)(*placed)
    rounding = jax.jit(functools.partial(scales, op))((x, experts, routing))
    for name, g, w, scale in zip(NAMES, got, want, rounding, strict=True):
        assert_close(g, w, 9 * scale, TOLERANCE["float32"], f"{method}, {name}")


# Modules that mix by it.


def test_bias_of_a_convolution():
    """y[b, p, f] = ... + sum_e r[b, e] bias[e, f], at the forward weights; its slope s gives

    d bias[e, f] = sum_b backward[b, e] sum_p s[b, p, f], and to the backward weights, beside what
    the kernel gives them, sum_f bias[e, f] sum_p s[b, p, f].
    """
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    x, kernel, bias = draw(2, 4, 5, 3), draw(3, 3, 3, 3, 4), draw(3, 4)
    shaken = ShakenRouting(draw(2, 3), draw(2, 3))
    module = nn.CondConv(4, (3, 3), 3)
    slope = slope_of(jnp.zeros((2, 4, 5, 4)))

    @jax.jit
    def run(x, params, shaken):
        apply = lambda x, params, shaken: module.apply(
            {"params": params}, x, shaken, mutable=["routing"]
        )
        y, pull, state = jax.vjp(apply, x, params, shaken, has_aux=True)
        return y, pull(slope), state

    y, (d_x, d_params, d_shaken), state = run(x, {"kernel": kernel, "bias": bias}, shaken)
    # What is recorded is what the value was mixed by.
    np.testing.assert_array_equal(state["routing"]["weights"], shaken.forward)
    want = ops.cond_conv(x, kernel, shaken.forward, method="reference")
    want += jnp.einsum("be,ef->bf", shaken.forward, bias)[:, None, None, :]
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
    # Sums over 20 positions of 27 products each, in float32.
    summed = np.asarray(slope).sum(axis=(1, 2))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(d_params["bias"], np.asarray(shaken.backward).T @ summed)
    _, pull = jax.vjp(
        functools.partial(ops.cond_conv, method="reference"), x, kernel, shaken.backward
    )
    by_x, by_kernel, by_routing = pull(slope)
    close(d_x, by_x)
    close(d_params["kernel"], by_kernel)
    close(d_shaken.backward, by_routing + summed @ np.asarray(bias).T)
    np.testing.assert_array_equal(d_shaken.forward, np.zeros((2, 3)))


def test_dense_layer():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    x, kernel, bias = draw(2, 5), draw(3, 5, 4), draw(3, 4)
    forward, backward, slope = draw(2, 3), draw(2, 3), draw(2, 4)
    module = nn.CondDense(4, 3)

    @jax.jit
    def run(x, params, shaken):
        apply = lambda x, params, shaken: module.apply({"params": params}, x, shaken)
        y, pull = jax.vjp(apply, x, params, shaken)
        return y, pull(slope)

    y, (d_x, d_params, d_shaken) = run(
        x, {"kernel": kernel, "bias": bias}, ShakenRouting(forward, backward)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(y, jnp.einsum("bc,be,ecf->bf", x, forward, kernel) + forward @ bias)
    close(d_x, jnp.einsum("bf,be,ecf->bc", slope, backward, kernel))
    close(d_params["kernel"], jnp.einsum("bf,be,bc->ecf", slope, backward, x))
    close(d_params["bias"], backward.T @ slope)
    close(d_shaken.backward, jnp.einsum("bf,bc,ecf->be", slope, x, kernel) + slope @ bias.T)
    np.testing.assert_array_equal(d_shaken.forward, np.zeros((2, 3)))


@pytest.mark.parametrize("top_k", [1, 2])
def test_of_the_largest_weights_each_pass_keeps_its_own(top_k):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    x, kernel, bias, slope = draw(2, 5), draw(3, 5, 4), draw(3, 4), draw(2, 4)
    # The largest is another expert in the backward pass.
    shaken = ShakenRouting(
        jnp.array([[3.0, 2.0, 1.0]] * 2), jnp.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.1]])
    )
    module = nn.CondDense(4, 3, top_k=top_k)
    apply = lambda params: module.apply({"params": params}, x, shaken)
    y, pull = jax.vjp(apply, {"kernel": kernel, "bias": bias})
    forward, backward = (ops.keep_top_k(weights, top_k) for weights in shaken)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(y, jnp.einsum("bc,be,ecf->bf", x, forward, kernel) + forward @ bias)
    (d_params,) = pull(slope)
    close(d_params["kernel"], jnp.einsum("bf,be,bc->ecf", slope, backward, x))
    close(d_params["bias"], backward.T @ slope)
