import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import nn, ops

KEY = jax.random.key(0)


def inputs(*middle):
    return jax.random.normal(jax.random.key(1), (3, *middle, 4))


def initial(module, *args):
    """Parameters with biases that are not zero."""
    variables = module.init(KEY, *args)
    spread = lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)
    return jax.tree.map(spread, variables)


@pytest.mark.parametrize("num_experts", [0, 1])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("middle", [(), (2, 3)])
def test_without_experts_it_is_flax_linen_dense(num_experts, use_bias, middle):
    x = inputs(*middle)
    theirs = linen.Dense(5, use_bias=use_bias)
    ours = nn.CondDense(5, num_experts, use_bias=use_bias)
    variables = initial(theirs, x)
    drawn, want = ours.init(KEY, x), theirs.init(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, drawn, want)
    got = ours.apply(variables, x)
    np.testing.assert_allclose(got, theirs.apply(variables, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("middle", [(), (5,), (2, 3)])
def test_matrix_and_bias_are_mixed_by_the_routing_of_the_mean(middle):
    x = inputs(*middle)
    module = nn.CondDense(5, 2, activation="softmax", temperature=2.0)
    variables = initial(module, x)
    y, state = module.apply(variables, x, mutable=["routing"])
    params = variables["params"]
    assert params["kernel"].shape == (2, 4, 5)
    assert params["bias"].shape == (2, 5)
    pooled = np.asarray(x).reshape(3, -1, 4).mean(axis=1)
    logits = pooled @ np.asarray(params["router"]["kernel"]) + np.asarray(params["router"]["bias"])
    odds = np.exp(logits / 2)
    routing = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(state["routing"]["weights"], routing, rtol=1e-5)
    mixed = jax.tree.map(lambda a: jnp.tensordot(routing, a, 1), dict(params) | {"router": None})
    want = jnp.einsum("b...c,bcf->b...f", x, mixed["kernel"])
    want += mixed["bias"].reshape(3, *(1,) * len(middle), 5)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_given_routing_is_used_and_recorded_after_init_only():
    x, routing = inputs(), jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]])
    module = nn.CondDense(5, 2, use_bias=False)
    variables = module.init(KEY, x, routing)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"kernel"}
    y, state = module.apply(variables, x, routing, mutable=["routing"])
    _, again = module.apply({**variables, **state}, x, 2 * routing, mutable=["routing"])
    np.testing.assert_array_equal(again["routing"]["weights"], 2 * routing)
    kernel = variables["params"]["kernel"]
    want = jnp.stack([x[0] @ kernel[0], 2 * x[1] @ kernel[1], x[2] @ (kernel[0] - kernel[1])])
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_experts_are_initialised_each_on_its_true_shape():
    kernel = nn.CondDense(64, 4).init(KEY, jnp.ones((1, 32)))["params"]["kernel"]
    # LeCun: 1 / 32; with the expert axis in the fan it would be 1 / 128.
    assert np.var(kernel) == pytest.approx(1 / 32, rel=0.1)
    assert len(np.unique(kernel[:, 0, 0])) == 4


def test_bfloat16_and_top_k():
    x = inputs()
    module = nn.CondDense(5, 4, dtype=jnp.bfloat16, top_k=1, method="reference")
    y, state = module.apply(initial(module, x), x, mutable=["routing"])
    weights = state["routing"]["weights"]
    assert (y.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
    assert ((weights != 0).sum(axis=1) == 1).all()
    static = nn.CondDense(5, 0, dtype=jnp.bfloat16)
    assert static.apply(static.init(KEY, x), x).dtype == jnp.bfloat16


def test_methods_agree():
    x = inputs(2)
    variables = initial(nn.CondDense(5, 2), x)
    apply = lambda method: nn.CondDense(5, 2, method=method).apply(variables, x)
    want = apply("reference")
    for method in set(ops.METHODS) - {"depthwise", "reference"}:
        np.testing.assert_allclose(apply(method), want, rtol=1e-4, atol=1e-5, err_msg=method)


@pytest.mark.parametrize(
    ("module", "routing", "message"),
    [
        (nn.CondDense(5, -2), None, "CondDense: num_experts is -2; pass 0 or more"),
        (nn.CondDense(5, 0), (3, 2), "CondDense: routing was passed but num_experts is 0; pass"),
        (nn.CondDense(5, 2), (2, 2), "cond_dense: routing has 2 rows, x has 3"),
        (nn.CondDense(5, 2, method="depthwise"), None, "a matrix has no depthwise form"),
        (nn.CondDense(5, 0, method="auo"), None, "CondDense: unknown method 'auo'.*mean 'auto'"),
    ],
)
def test_refusals(unchecked, module, routing, message):
    given = () if routing is None else (jnp.ones(routing),)
    with pytest.raises(ValueError, match=message):
        module.init(KEY, inputs(), *given)
