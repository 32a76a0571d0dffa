"""cond_conv: identities over drawn convolutions, goldens by hand, gradients, precision."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import (
    CPP,
    NAMES,
    RUNNABLE,
    TOLERANCE,
    Case,
    assert_close,
    bound,
    cases,
    loop_conv,
    runnable,
    scales,
    value_and_gradients,
    xla_conv,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from condconv_jax import ops

METHODS = sorted(RUNNABLE)

# Corners that a draw may miss: E = 1, a kernel larger than the input, rows that no output reads
# (stride over kernel), residues of the stride that no tap meets, a channel multiplier.
CORNERS = (
    Case((1, 1, 1, 1), (3, 3, 1, 1), 1),
    Case((2, 7, 8, 2), (1, 2, 1, 4), 2, strides=(3, 3), padding="VALID", feature_group_count=2),
    Case(
        (2, 8, 9, 2),
        (2, 2, 1, 2),
        3,
        strides=(2, 3),
        padding=((2, 1), (0, 3)),
        kernel_dilation=(2, 3),
        feature_group_count=2,
    ),
    Case((2, 4, 5, 2), (1, 1, 2, 3), 2, strides=(2, 3), padding=((1, 0), (0, 2))),
)


def corners(test):
    for case in CORNERS:
        test = example(case)(test)
    return test


def test_every_method_has_a_case_here():
    assert set(ops.METHODS) == {*RUNNABLE, *(() if ops.native.available() else CPP)}


@corners
@given(cases())
@settings(max_examples=10)
def test_methods_are_equation_1_in_value_and_gradients(case):
    @jax.jit
    def run(*arrays):
        by_method = {m: value_and_gradients(bound(case, m), arrays) for m in case.methods()}
        equation_1 = functools.partial(loop_conv, case=case)
        want = value_and_gradients(equation_1, arrays)
        return by_method, want, scales(bound(case, "mixture"), arrays)

    by_method, want, scale = run(*case.arrays())
    for method, results in by_method.items():
        for name, g, w, size in zip(NAMES, results, want, scale, strict=True):
            assert_close(g, w, size, TOLERANCE["float32"], f"{method}, {name}")


@corners
@given(cases())
def test_one_hot_routing_is_that_experts_convolution(case):
    x, experts, _ = case.arrays()
    chosen = np.arange(x.shape[0]) % case.num_experts
    routing = jnp.asarray(np.eye(case.num_experts)[chosen], jnp.float32)

    @jax.jit
    def run(x, experts, routing):
        want = [xla_conv(x[b : b + 1], experts[e], case) for b, e in enumerate(chosen)]
        size = loop_conv(jnp.abs(x), jnp.abs(experts), routing, case)
        got = {m: bound(case, m)(x, experts, routing) for m in case.methods()}
        return got, jnp.concatenate(want), size

    got, want, size = run(x, experts, routing)
    for method, y in got.items():
        assert_close(y, want, size, TOLERANCE["float32"], method)


@given(cases(), st.randoms(use_true_random=False))
def test_linear_in_routing_and_blind_to_the_order_of_experts(case, random):
    x, experts, routing = case.arrays()
    other = jnp.asarray(np.random.default_rng(1).standard_normal(routing.shape), jnp.float32)
    order = list(range(case.num_experts))
    random.shuffle(order)
    order = np.array(order)

    @jax.jit
    def run(x, experts, routing, other):
        results = {}
        for method in case.methods():
            op = bound(case, method)
            combined = op(x, experts, 2.0 * routing - 0.5 * other)
            parts = 2.0 * op(x, experts, routing) - 0.5 * op(x, experts, other)
            permuted = op(x, experts[order], routing[:, order])
            results[method] = combined, parts, permuted, op(x, experts, routing)
        size = bound(case, "reference")(
            jnp.abs(x), jnp.abs(experts), 2.0 * jnp.abs(routing) + jnp.abs(other)
        )
        return results, size

    results, size = run(x, experts, routing, other)
    for method, (combined, parts, permuted, plain) in results.items():
        assert_close(combined, parts, size, 2 * TOLERANCE["float32"], f"{method}, linear")
        assert_close(permuted, plain, size, TOLERANCE["float32"], f"{method}, permuted")


@pytest.mark.parametrize("method", METHODS)
def test_one_expert_of_weight_one_is_the_plain_convolution(method):
    case = runnable(method, experts=1)
    x, experts, _ = case.arrays()
    y = bound(case, method)(x, experts, jnp.ones((x.shape[0], 1)))
    np.testing.assert_allclose(y, xla_conv(x, experts[0], case), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["reference", "mixture", "spatial", "depthwise"])
def test_golden_one_row(method):
    # x = 1 2 3 for both examples; experts W0 = 1 0 -1 and W1 = 0 2 0, a row of three taps.
    x = jnp.array([[1.0, 2.0, 3.0]] * 2).reshape(2, 1, 3, 1)
    experts = jnp.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]).reshape(2, 1, 3, 1, 1)
    # Example 0 mixes 0.5 W0 + 2 W1 = 0.5 4 -0.5, example 1 is W0.
    routing = jnp.array([[0.5, 2.0], [1.0, 0.0]])
    op = jax.jit(functools.partial(ops.cond_conv, method=method))
    y, pull_back = jax.vjp(op, x, experts, routing)
    # Not flipped: y[j] = k[0] x[j-1] + k[1] x[j] + k[2] x[j+1], zeros beyond the ends.
    # Example 0: 4*1 - 0.5*2 = 3; 0.5*1 + 4*2 - 0.5*3 = 7; 0.5*2 + 4*3 = 13.
    # Example 1: -2; 1 - 3 = -2; 2.
    np.testing.assert_allclose(y[:, 0, :, 0], [[3, 7, 13], [-2, -2, 2]], rtol=1e-6)
    dx, dw, dr = pull_back(jnp.ones_like(y))
    # dx[j] = sum of the taps that meet x[j]: k1 + k0, k2 + k1 + k0, k2 + k1.
    np.testing.assert_allclose(dx[:, 0, :, 0], [[4.5, 4, 3.5], [1, 0, -1]], atol=1e-6)
    # Each tap meets, summed over the outputs, x0 + x1 = 3; x0 + x1 + x2 = 6; x1 + x2 = 5,
    # in both examples; W0 is weighted 0.5 + 1, W1 2 + 0.
    np.testing.assert_allclose(dw[:, 0, :, 0, 0], [[4.5, 9, 7.5], [6, 12, 10]], rtol=1e-6)
    # dr[e] = the sum of the outputs of W_e: -2 - 2 + 2 = -2, and 2 * (1 + 2 + 3) = 12.
    np.testing.assert_allclose(dr, [[-2, 12], [-2, 12]], rtol=1e-6)


@pytest.mark.parametrize("method", ["reference", "mixture", "spatial", "depthwise"])
def test_golden_two_channels_and_a_multiplier(method):
    # One 2x2 window. Channel 0 is 1 2 / 3 4, channel 1 is 5 6 / 7 8.
    x = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    x = x.reshape(2, 2, 2).transpose(1, 2, 0)[None]
    # Four outputs, the first two of channel 0: sum, top left; then top right, sum of channel 1.
    expert = jnp.zeros((2, 2, 1, 4))
    expert = expert.at[:, :, 0, 0].set(1).at[0, 0, 0, 1].set(1)
    expert = expert.at[0, 1, 0, 2].set(1).at[:, :, 0, 3].set(1)
    # The second expert is the first with its outputs in reverse; routing 1, 10.
    experts = jnp.stack([expert, expert[..., ::-1]])
    y = ops.cond_conv(
        x,
        experts,
        jnp.array([[1.0, 10.0]]),
        strides=2,
        padding="VALID",
        feature_group_count=2,
        method=method,
    )
    # Expert 0: 10, 1, 6, 26. Expert 1: sum 10 of channel 0; its top right 2; the top left 5 and
    # the sum 26 of channel 1.
    want = [10 + 10 * 10, 1 + 10 * 2, 6 + 10 * 5, 26 + 10 * 26]
    np.testing.assert_allclose(y[0, 0, 0], want, rtol=1e-6)


@pytest.mark.parametrize("method", ["reference", "mixture", "pointwise", "spatial", "auto"])
def test_golden_one_pixel(method):
    # 2 W0 + 3 W1 = (2 7; 9 8), and (1, 2) times it is 1*2 + 2*9, 1*7 + 2*8.
    experts = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])
    y = ops.cond_conv(
        jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2),
        experts.reshape(2, 1, 1, 2, 2),
        jnp.array([[2.0, 3.0]]),
        method=method,
    )
    np.testing.assert_allclose(y[0, 0, 0], [20, 23], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_under_jit_checkpoint_and_an_outer_vmap(method):
    case = runnable(method)
    x, experts, routing = case.arrays()
    xs, routings = jnp.stack([x, 2 * x[::-1]]), jnp.stack([routing[::-1], routing])
    many = jnp.stack([experts, experts[::-1]])

    def gradients(x, experts, routing, wrap=lambda op: op):
        return value_and_gradients(wrap(bound(case, method)), (x, experts, routing))

    @jax.jit
    def run(xs, many, routings):
        rows = [gradients(xs[i], many[i], routings[i]) for i in range(2)]
        shared = [gradients(xs[i], many[0], routings[i]) for i in range(2)]
        return {
            "plain": rows[0],
            "checkpoint": gradients(xs[0], many[0], routings[0], jax.checkpoint),
            "rows": jax.tree.map(lambda *a: jnp.stack(a), *rows),
            "vmap": jax.vmap(gradients)(xs, many, routings),
            "shared rows": jax.tree.map(lambda *a: jnp.stack(a), *shared),
            "shared vmap": jax.vmap(gradients, in_axes=(0, None, 0))(xs, many[0], routings),
        }

    found = run(xs, many, routings)
    eager = gradients(xs[0], many[0], routings[0])
    pairs = [
        (eager, found["plain"]),
        (found["checkpoint"], found["plain"]),
        (found["vmap"], found["rows"]),
        (found["shared vmap"], found["shared rows"]),
    ]
    for got, want in pairs:
        for name, g, w in zip(NAMES, got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("method", ["reference", "mixture"])
def test_forward_mode_of_the_methods_that_promise_it(method):
    case = runnable(method)
    x, experts, routing = case.arrays()
    # Linear in the routing: the derivative along a direction is the op in that direction.
    _, slope = jax.jvp(
        lambda r: bound(case, method)(x, experts, r), (routing,), (routing[::-1] + 1,)
    )
    want = bound(case, method)(x, experts, routing[::-1] + 1)
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "kernel", "groups", "size"),
    [
        (4, (3, 3, 1, 4), 4, 5),
        (4, (1, 1, 4, 3), 1, 5),
        (4, (3, 3, 4, 30), 1, 5),
        (4, (3, 3, 4, 3), 1, 5),
    ],
    ids=["depthwise", "pointwise", "tiled", "mapped"],
)
def test_auto_never_groups_by_the_batch(channels, kernel, groups, size):
    # What vmap makes of a convolution, feature groups, and worse of its gradient, batch groups:
    # XLA takes seconds for either.
    case = Case((9, size, size, channels), kernel, 2, feature_group_count=groups)

    def largest(method):
        text = str(
            jax.make_jaxpr(lambda *a: value_and_gradients(bound(case, method), a))(*case.arrays())
        )
        counts = re.findall(r"(?:feature|batch)_group_count=(\d+)", text)
        return max(map(int, counts), default=1)

    assert largest("auto") == 1
    assert largest("reference") >= 9


@pytest.mark.parametrize("method", METHODS)
def test_no_examples(method):
    case = runnable(method, batch=0)
    y, *gradients = value_and_gradients(bound(case, method), case.arrays())
    assert y.shape[0] == 0
    assert not np.asarray(gradients[1]).any()


def _arrays(x=(2, 5, 5, 4), experts=(3, 3, 3, 4, 6), routing=(2, 3)):
    return jnp.ones(x), jnp.ones(experts), jnp.ones(routing)


@pytest.mark.parametrize(
    ("shapes", "keywords", "message"),
    [
        (
            {"experts": (3, 3, 4, 6)},
            {},
            r"cond_conv: experts are \(3, 3, 4, 6\); pass \(e, kh, kw, c/g, f\), experts leading",
        ),
        ({"routing": (8, 3)}, {}, "cond_conv: routing has 8 rows, x has 2; pass one row per"),
        ({"routing": (3,)}, {}, r"cond_conv: routing has \(3,\) rows, x has 2"),
        (
            {"routing": (2, 4)},
            {},
            "cond_conv: routing has 4 weights per example, experts are 3; pass one weight per",
        ),
        ({}, {"method": "depthwize"}, "unknown method 'depthwize'.*did you mean 'depthwise'?"),
        (
            {},
            {"method": "pointwise"},
            "cond_conv: method 'pointwise' runs 1x1 kernels in one group, not 3x3 in 1; "
            "use method='spatial'",
        ),
        (
            {"experts": (3, 3, 3, 1, 8)},
            {"method": "pointwise", "feature_group_count": 4},
            "not 3x3 in 4; use method='depthwise'",
        ),
        (
            {},
            {"method": "depthwise"},
            "cond_conv: method 'depthwise' runs one group per channel, not 1 for 4 channels; "
            "use method='spatial'",
        ),
        (
            {"experts": (3, 1, 1, 4, 6)},
            {"method": "depthwise"},
            "not 1 for 4 channels; use method='pointwise'",
        ),
    ],
)
def test_refusals(unchecked, shapes, keywords, message):
    with pytest.raises(ValueError, match=message):
        ops.cond_conv(*_arrays(**shapes), **keywords)
