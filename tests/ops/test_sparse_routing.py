"""top_k: the same as masking the routing, by reading k experts where the batch is small."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import (
    RUNNABLE,
    TOLERANCE,
    Case,
    assert_close,
    bound,
    mesh,
    runnable,
    scales,
    value_and_gradients,
    xla_conv,
)
from jax.sharding import NamedSharding, PartitionSpec

from condconv_jax import ops
from condconv_jax.ops.sparse import mix_top_k, reads_fewer

METHODS = sorted(RUNNABLE)
# The others do not read them in the forward pass only, by another way (test_native_method.py). A
# mixture has a convolution of each expert, whatever its weight.
READING = [name for name in METHODS if not ops.METHODS[name].skips_zeros and name != "mixture"]
NAMES = ("value", "gradient by x", "gradient by experts", "gradient by routing", "by scale")
EXPERTS = 5


def arrays_of(case):
    """x, experts, routing of either sign, and a scale per expert."""
    x, experts, routing = case.arrays()
    routing = jnp.tanh(routing)
    # The first example's weights are all negative: the largest are the closest to 0.
    routing = routing.at[0].set(-jnp.abs(routing[0]))
    return x, experts, routing, jnp.linspace(0.5, 2.0, case.num_experts)


def sparse(case, method, k=2):
    op = bound(case, method)
    return lambda x, experts, routing, scale: op(x, experts, routing, top_k=k, scale=scale)


def masked(case, k=2):
    """What `top_k` means: each example's convolution, the other weights at 0, the kept scaled."""

    def op(x, experts, routing, scale):
        kept = ops.keep_top_k(routing, k) * scale[None, :]
        kernels = jnp.einsum("be,e...->b...", kept, experts, precision="highest")
        rows = [xla_conv(x[b : b + 1], kernels[b], case) for b in range(x.shape[0])]
        return jnp.concatenate(rows)

    return op


def against_masked(case, method, arrays):
    """Value and gradients, what they have to be, and what rounding is relative to."""
    everything = scales(masked(case, case.num_experts), arrays)
    return (
        value_and_gradients(sparse(case, method), arrays),
        value_and_gradients(masked(case), arrays),
        everything,
    )


@pytest.mark.parametrize("method", METHODS)
def test_value_and_gradients_are_those_of_the_masked_routing(method):
    # For one example 2 experts are fewer than 5; for three examples 6 are not.
    case = runnable(method, batch=3, experts=EXPERTS)
    x, experts, routing, scale = arrays_of(case)

    @jax.jit
    def run(x, experts, routing, scale):
        return {
            batch: against_masked(case, method, (x[:batch], experts, routing[:batch], scale))
            for batch in (1, 3)
        }

    for batch, results in run(x, experts, routing, scale).items():
        for name, g, w, s in zip(NAMES, *results, strict=True):
            assert_close(g, w, s, TOLERANCE["float32"], f"{method}, batch {batch}, {name}")
        _, _, d_experts, d_routing, _ = map(np.asarray, results[0])
        # Exactly k take part, the others not by a rounding error either.
        assert ((d_routing != 0).sum(axis=1) == 2).all()
        met = (d_experts != 0).any(axis=(1, 2, 3, 4))
        np.testing.assert_array_equal(met, (d_routing != 0).any(axis=0))


@pytest.mark.parametrize("method", READING)
def test_experts_that_are_not_chosen_are_not_read(method):
    # 0 * inf is nan, so a product with zero weights would show.
    case = runnable(method, batch=2, experts=EXPERTS)
    x, experts, routing, scale = arrays_of(case)
    chosen = np.unique(np.argsort(-np.abs(routing), axis=1)[:, :2])
    others = np.setdiff1d(np.arange(EXPERTS), chosen)
    poisoned = experts.at[others].set(jnp.nan).at[others[0]].set(jnp.inf)
    run = jax.jit(lambda *arrays: value_and_gradients(sparse(case, method), arrays))
    got, want = run(x, poisoned, routing, scale), run(x, experts, routing, scale)
    for name, g, w in zip(NAMES, got, want, strict=True):
        np.testing.assert_array_equal(g, w, err_msg=name)
    assert np.isfinite(got[0]).all()
    assert not np.asarray(got[2])[others].any()


@pytest.mark.parametrize("batch", [2, 8])
@pytest.mark.parametrize("kernel", [(1, 1, 32, 32), (3, 3, 32, 32), (3, 3, 1, 32)])
def test_auto_reads_the_chosen_experts_only(batch, kernel):
    case = Case((batch, 6, 6, 32), kernel, 3 * batch, feature_group_count=32 // kernel[2])
    x, experts, _ = case.arrays()
    routing = jnp.eye(batch, 3 * batch)
    poisoned = experts.at[batch:].set(jnp.nan)
    got = ops.cond_conv(x, poisoned, routing, top_k=1, **case.keywords)
    want = ops.cond_conv(x, experts, routing, method="reference", **case.keywords)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "k", "reads"),
    [(1, 1, True), (1, 7, True), (3, 2, True), (1, 8, False), (4, 2, False), (2, 4, False)],
)
def test_from_as_many_as_all_experts_on_they_are_mixed_at_once(batch, k, reads):
    case = runnable("pointwise", batch=batch, experts=8)
    program = str(jax.make_jaxpr(sparse(case, "pointwise", k))(*arrays_of(case)))
    assert ("dynamic_slice" in program) is reads


@pytest.mark.parametrize(
    ("batch", "experts", "k", "want"),
    [(1, 8, 7, True), (1, 8, 8, False), (4, 8, 2, False), (3, 8, 2, True), ("b", 8, 1, False)],
)
def test_reads_fewer(batch, experts, k, want):
    assert reads_fewer(batch, experts, k) is want


def test_mix_top_k_golden():
    # The largest two of (0.5 -3 2 1) are -3 and 2, of experts 1 and 2, scaled by 1 and 10:
    # -3 * (2 20) + 20 * (3 30). Of (-1 -4 -2 -3), -4 and -3: -4 * (2 20) - 3 * (4 40).
    experts = jnp.array([[1, 10], [2, 20], [3, 30], [4, 40]])
    routing = jnp.array([[0.5, -3, 2, 1], [-1, -4, -2, -3]])
    scale = jnp.array([1.0, 1, 10, 1])
    for dtype in ("int8", "bfloat16", "float32"):
        mixed = mix_top_k(experts.astype(dtype), routing, 2, jnp.float32, scale)
        assert mixed.dtype == jnp.float32
        np.testing.assert_array_equal(mixed, [[54, 540], [-20, -200]])
    assert mix_top_k(experts, routing, 2, jnp.bfloat16, scale).dtype == jnp.bfloat16


def test_mix_top_k_adds_up_in_float32():
    experts = jnp.ones((6, 1), jnp.bfloat16).at[0].set(256)
    routing = jnp.array([[6, 5, 4, 3, 2, 1]], jnp.bfloat16)
    # 6 * 256 + 5 + 4 + 3 + 2: no bfloat16, which are 8 apart there.
    mixed = mix_top_k(experts, routing, 5, jnp.float32, jnp.ones(6))
    assert float(mixed[0, 0]) == 1550


@pytest.mark.parametrize("batch", [1, 4])
def test_of_equal_weights_the_first_are_kept(batch):
    # Experts 1 2 4 8 on a pixel of 1; weights of 0.5 but the third's 0.25. Kept: experts 0 and 1.
    experts = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(4, 1, 1, 1, 1)
    routing = jnp.tile(jnp.array([[0.5, 0.5, 0.25, 0.5]]), (batch, 1))
    x = jnp.ones((batch, 1, 1, 1))
    op = jax.jit(functools.partial(ops.cond_conv, top_k=2))
    y, pull_back = jax.vjp(op, x, experts, routing)
    dx, d_experts, d_routing = pull_back(jnp.ones_like(y))
    np.testing.assert_array_equal(y.ravel(), [1.5] * batch)
    np.testing.assert_array_equal(dx.ravel(), [1.5] * batch)
    np.testing.assert_array_equal(d_experts.ravel(), [0.5 * batch, 0.5 * batch, 0, 0])
    np.testing.assert_array_equal(d_routing, [[1, 2, 0, 0]] * batch)


@pytest.mark.parametrize("batch", [1, 4])
def test_chosen_by_routing_and_not_by_scaled_routing(batch):
    # Experts are 3 and 5; weight 0.75 of scale 1 is the largest, not 0.5 of scale 10.
    experts = jnp.array([3, 5], jnp.int8).reshape(2, 1, 1)
    routing = jnp.tile(jnp.array([[0.75, 0.5]]), (batch, 1))
    y = ops.cond_dense(
        jnp.ones((batch, 1)), experts, routing, top_k=1, scale=jnp.array([1.0, 10.0])
    )
    np.testing.assert_array_equal(y, [[2.25]] * batch)


def test_k_of_all_experts_is_no_top_k():
    case = runnable("spatial", batch=1, experts=3)
    arrays = case.arrays()
    got, want = (bound(case, "spatial")(*arrays, top_k=k) for k in (3, None))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("batch", "middle"), [(1, ()), (2, (3,)), (5, ())])
def test_dense(batch, middle):
    rng = np.random.default_rng(batch)
    shapes = (batch, *middle, 3), (5, 3, 4), (batch, 5), (5,)
    arrays = tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)

    def plain(x, experts, routing, scale, k=2):
        kept = ops.keep_top_k(routing, k) * scale[None, :]
        return jnp.einsum("be,b...c,ecf->b...f", kept, x, experts, precision="highest")

    def op(x, experts, routing, scale):
        return ops.cond_dense(x, experts, routing, top_k=2, scale=scale)

    @jax.jit
    def run(*arrays):
        size = scales(functools.partial(plain, k=5), arrays)
        return value_and_gradients(op, arrays), value_and_gradients(plain, arrays), size

    for name, g, w, s in zip(NAMES, *run(*arrays), strict=True):
        assert_close(g, w, s, TOLERANCE["float32"], name)


@pytest.mark.parametrize("batch", [1, 3])
def test_bfloat16(batch):
    case = runnable("spatial", batch=batch, experts=EXPERTS)
    x, *rest = arrays_of(case)
    low = x.astype(jnp.bfloat16), *rest

    @jax.jit
    def run(low):
        exact = low[0].astype(jnp.float32), *low[1:]
        got = value_and_gradients(sparse(case, "spatial"), low)
        return got, *against_masked(case, "spatial", exact)[1:]

    got, want, size = run(low)
    assert [a.dtype for a in got] == [jnp.bfloat16] * 2 + [jnp.float32] * 3
    for name, g, w, s in zip(NAMES, got, want, size, strict=True):
        assert_close(g, w, s, TOLERANCE["bfloat16"], name)


def test_each_device_of_a_mesh_reads_the_experts_of_its_own_example():
    # All together would need 16 of 5 experts, each device needs 2. No example chooses the last
    # expert, so there may be anything there.
    case = runnable("pointwise", batch=8, experts=EXPERTS)
    x, experts, routing, scale = arrays_of(case)
    arrays = x, experts, routing.at[:, -1].set(0), scale
    poisoned = x, experts.at[-1].set(jnp.nan), *arrays[2:]
    assert np.isnan(sparse(case, "pointwise")(*poisoned)).any()
    _, want, size = jax.jit(lambda *a: against_masked(case, "mixture", a))(*arrays)
    specs = PartitionSpec("data"), PartitionSpec(), PartitionSpec("data"), PartitionSpec()
    with jax.set_mesh(mesh()):
        placed = [
            jax.device_put(a, NamedSharding(mesh(), spec))
            for a, spec in zip(poisoned, specs, strict=True)
        ]
        run = jax.jit(lambda *a: value_and_gradients(sparse(case, "pointwise"), a))
        got = run(*placed)
    for name, g, w, s in zip(NAMES, got, want, size, strict=True):
        assert_close(g, w, s, TOLERANCE["float32"], name)


def test_under_an_outer_vmap():
    case = runnable("pointwise", batch=1, experts=3)
    x, experts, routing = case.arrays()
    op = lambda x, routing: bound(case, "pointwise")(x, experts, routing, top_k=1)
    xs, routings = jnp.stack([x, 2 * x]), jnp.stack([routing, -routing])
    got = jax.jit(jax.vmap(op))(xs, routings)
    want = jnp.stack([jax.jit(op)(xs[i], routings[i]) for i in range(2)])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_a_program_for_any_batch_masks():
    case = Case((1, 1, 1, 3), (1, 1, 3, 4), 5)
    x, experts, routing = case.arrays()
    op = lambda x, routing: bound(case, "auto")(x, experts, routing, top_k=2)
    (b,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype) for a in (x, routing)]
    exported = jax.export.export(jax.jit(op))(*shapes)
    for batch in (1, 3):
        arrays = jnp.repeat(x, batch, axis=0), jnp.repeat(routing, batch, axis=0)
        np.testing.assert_allclose(exported.call(*arrays), op(*arrays), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "top_k is 0; pass 1 to 3, the number of experts"),
        (-1, "top_k is -1; pass 1 to 3"),
        (4, "top_k is 4; pass 1 to 3"),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_refusals_of_top_k(k, message, batch):
    x, experts, routing = jnp.ones((batch, 4)), jnp.ones((3, 4, 5)), jnp.ones((batch, 3))
    with pytest.raises(ValueError, match=f"cond_dense: {message}"):
        ops.cond_dense(x, experts, routing, top_k=k)
    x, experts = x[:, None, None], experts[:, None, None]
    with pytest.raises(ValueError, match=f"cond_conv: {message}"):
        ops.cond_conv(x, experts, routing, top_k=k)


@pytest.mark.parametrize("scale", [(2,), (4,), (2, 3), ()])
def test_refusals_of_scale(unchecked, scale):
    x, experts, routing = jnp.ones((2, 4)), jnp.ones((3, 4, 5)), jnp.ones((2, 3))
    wants = "experts are 3; pass one per expert"
    with pytest.raises(ValueError, match=rf"cond_dense: scale is {re.escape(str(scale))}, {wants}"):
        ops.cond_dense(x, experts, routing, scale=jnp.ones(scale))
    x, experts = x[:, None, None], experts[:, None, None]
    with pytest.raises(ValueError, match=rf"cond_conv: scale is {re.escape(str(scale))}, {wants}"):
        ops.cond_conv(x, experts, routing, scale=jnp.ones(scale))
