import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import nn, ops

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 6, 5, 4))


def initial(module, *args):
    """Parameters with biases that are not zero."""
    variables = jax.jit(module.init)(KEY, *args)
    spread = lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)
    return jax.tree.map(spread, variables)


def shapes(variables):
    flat = jax.tree_util.tree_leaves_with_path(variables)
    return {"/".join(k.key for k in path): leaf.shape for path, leaf in flat}


@pytest.mark.parametrize("num_experts", [0, 1])
@pytest.mark.parametrize(
    ("kernel_size", "keywords"),
    [
        ((3, 3), {}),
        ((3, 2), {"strides": (2, 1), "padding": "VALID", "use_bias": False}),
        ((3, 3), {"feature_group_count": 4, "strides": 2, "padding": [(1, 1), (0, 2)]}),
        ((1, 1), {"strides": 2}),
        ((2, 2), {"feature_group_count": 2, "kernel_dilation": (2, 1), "padding": 1}),
        ((3, 3), {"strides": None, "kernel_dilation": None, "input_dilation": None}),
    ],
)
def test_without_experts_it_is_flax_linen_conv(num_experts, kernel_size, keywords):
    theirs = linen.Conv(8, kernel_size, **keywords)
    ours = nn.CondConv(8, kernel_size, num_experts, **keywords)
    variables = initial(theirs, X)
    assert shapes(ours.init(KEY, X)) == shapes(variables)
    # Drawn alike from one key, too.
    first = lambda module: jax.tree.leaves(module.init(KEY, X))[-1]
    np.testing.assert_array_equal(first(ours), first(theirs))
    want = theirs.apply(variables, X)
    got, state = ours.apply(variables, X, mutable=["routing"])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert not state  # there is no routing to record


def test_parameters_with_experts():
    module = nn.CondConv(8, (3, 2), 5, feature_group_count=2)
    assert shapes(module.init(KEY, X)["params"]) == {
        "kernel": (5, 3, 2, 2, 8),
        "bias": (5, 8),
        "router/kernel": (4, 5),
        "router/bias": (5,),
    }
    shared = nn.CondConv(8, 3, 5, use_bias=False)
    assert shapes(shared.init(KEY, X, jnp.ones((3, 5)))["params"]) == {"kernel": (5, 3, 3, 4, 8)}


def test_each_expert_is_initialised_on_the_true_shape():
    module = nn.CondConv(64, (3, 3), 4, bias_init=linen.initializers.normal(1.0))
    params = module.init(KEY, X)["params"]
    # LeCun: variance 1 / (3 * 3 * 4). The stacked shape's fan would have given a quarter.
    assert np.var(params["kernel"]) == pytest.approx(1 / 36, rel=0.1)
    for name in ("kernel", "bias"):
        assert len(np.unique(params[name].reshape(4, -1)[:, 0])) == 4


def test_golden_bias_and_routing():
    # A 1x1 kernel of 1 channel: y = (r0 w0 + r1 w1) x + r0 b0 + r1 b1, with its own routing
    # r = sigmoid(mean(x) * router + bias) = sigmoid((0, ln 3)) = (0.5, 0.75) for mean(x) = 2.
    params = {
        "kernel": jnp.array([2.0, 4.0]).reshape(2, 1, 1, 1, 1),
        "bias": jnp.array([[1.0], [10.0]]),
        "router": {
            "kernel": jnp.array([[1.0, 0.5 * np.log(3.0)]]),
            "bias": jnp.array([-2.0, 0.0]),
        },
    }
    x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    y = nn.CondConv(1, (1, 1), 2).apply({"params": params}, x)
    # Kernel 0.5 * 2 + 0.75 * 4 = 4, bias 0.5 + 7.5 = 8.
    np.testing.assert_allclose(y[0, 0, :, 0], [12, 20], rtol=1e-5)


@pytest.mark.parametrize(
    "keywords",
    [{}, {"activation": "softmax", "temperature": 3.0}, {"activation": "tanh", "top_k": 2}],
)
def test_its_own_router_is_route_on_the_pooled_input(keywords):
    module = nn.CondConv(8, (3, 3), 4, strides=2, **keywords)
    variables = initial(module, X)
    y, state = module.apply(variables, X, mutable=["routing"])
    params, options = variables["params"], dict(keywords)
    k = options.pop("top_k", 4)
    pooled = X.mean(axis=(1, 2))
    routing = ops.route(pooled, params["router"]["kernel"], params["router"]["bias"], **options)
    routing = ops.keep_top_k(routing, k)
    np.testing.assert_allclose(state["routing"]["weights"], routing, rtol=1e-5, atol=1e-6)
    want = ops.cond_conv(X, params["kernel"], routing, strides=2)
    want += jnp.einsum("be,ef->bf", routing, params["bias"])[:, None, None, :]
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_given_routing_is_used_and_recorded():
    module = nn.CondConv(8, (3, 3), 4, kernel_dilation=2, padding="VALID", feature_group_count=2)
    routing = jax.random.normal(KEY, (3, 4))
    variables = initial(module, X, routing)
    y, state = module.apply(variables, X, routing, mutable=["routing"])
    np.testing.assert_array_equal(state["routing"]["weights"], routing)
    params = variables["params"]
    for b in range(3):
        one = linen.Conv(8, (3, 3), kernel_dilation=2, padding="VALID", feature_group_count=2)
        mixed = jax.tree.map(lambda a, b=b: jnp.tensordot(routing[b], a, 1), params)
        want = one.apply({"params": mixed}, X[b : b + 1])
        np.testing.assert_allclose(y[b : b + 1], want, rtol=1e-4, atol=1e-5)


def test_routing_is_sown_after_init_only_and_does_not_grow():
    module = nn.CondConv(2, (1, 1), 3)
    variables = module.init(KEY, X)
    assert set(variables) == {"params"}

    class Twice(linen.Module):
        def setup(self):
            self.layer = nn.CondConv(4, (1, 1), 3)

        def __call__(self, x):
            return self.layer(self.layer(x))

    twice = Twice()
    variables = twice.init(KEY, X)
    assert set(variables) == {"params"}
    _, once = twice.apply(variables, X, mutable=["routing"])
    assert shapes(once) == {"routing/layer/weights": (3, 3)}
    _, again = twice.apply({**variables, **once}, 2 * X, mutable=["routing"])
    assert shapes(again) == {"routing/layer/weights": (3, 3)}
    assert not np.allclose(*jax.tree.leaves((once, again)))
    # Without the collection asked for, nothing is recorded and nothing complains.
    assert twice.apply(variables, X).shape == (3, 6, 5, 4)


def test_bfloat16_computes_low_and_routes_in_float32():
    low, exact = (nn.CondConv(8, (3, 3), 4, dtype=d) for d in (jnp.bfloat16, None))
    variables = initial(low, X)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    y, state = low.apply(variables, X, mutable=["routing"])
    want, reference = exact.apply(variables, X, mutable=["routing"])
    assert y.dtype == jnp.bfloat16
    weights = state["routing"]["weights"]
    assert weights.dtype == jnp.float32
    # The inputs are float32 here, and the routing reads them before they are rounded.
    np.testing.assert_array_equal(weights, reference["routing"]["weights"])
    assert np.abs(y.astype(jnp.float32) - want).max() < 2**-5 * np.abs(want).max()
    assert jax.tree.leaves(nn.CondConv(2, 1, 2, param_dtype=jnp.bfloat16).init(KEY, X))[
        0
    ].dtype == (jnp.bfloat16)


def test_method_reaches_the_op():
    def program(method):
        module = nn.CondConv(4, (3, 3), 2, feature_group_count=4, method=method)
        variables = jax.eval_shape(module.init, KEY, X)
        return str(jax.make_jaxpr(module.apply)(variables, X))

    assert "conv_general_dilated" in program("reference")
    assert "conv_general_dilated" not in program("auto")
    static = nn.CondConv(4, (3, 3), 0, feature_group_count=4)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(lambda x: static.init(KEY, x))(X))
    with pytest.raises(ValueError, match="cond_conv: method 'pointwise' runs 1x1"):
        nn.CondConv(4, (3, 3), 2, method="pointwise").init(KEY, X)


@pytest.mark.parametrize(
    ("args", "keywords", "message"),
    [
        ((8, (3, 3), -1), {}, "CondConv: num_experts is -1; pass 0 or more"),
        ((8, (3, 3), 2), {"padding": "CIRCULAR"}, "CondConv: padding 'CIRCULAR' is not supported"),
        ((8, (3, 3), 0), {"padding": "REFLECT"}, "padding 'REFLECT'.*pass padding='VALID'"),
        ((8, (3, 3), 0), {"padding": "CAUSAL"}, "padding 'CAUSAL'"),
        ((8, (3, 3), 2), {"padding": "same"}, "cond_conv: padding is 'same'; pass 'SAME'"),
        ((8, (3, 3), 2), {"input_dilation": 2}, "CondConv: input_dilation is 2; only 1"),
        ((8, (3, 3), 0), {"mask": jnp.ones(1)}, "CondConv: mask is not supported; multiply the"),
        (
            (8, (3, 3), 2),
            {"precision": jax.lax.Precision.HIGHEST},
            "CondConv: precision is not supported; use jax.default_matmul_precision",
        ),
        ((8, (3,), 2), {}, r"CondConv: kernel_size is \(3,\); pass \(kh, kw\)"),
        ((8, (3, 3), 0), {"method": "spatiel"}, "CondConv: unknown method.*did you mean 'spatial'"),
        ((8, (3, 3), 2), {"method": "spatiel"}, "cond_conv: unknown method 'spatiel'"),
        (
            (8, (3, 3), 2),
            {"feature_group_count": 0},
            "CondConv: feature_group_count is 0 for 4 input and 8 output channels; pass a divisor",
        ),
        ((8, (3, 3), 0), {"feature_group_count": 8}, "feature_group_count is 8 for 4 input"),
        ((6, (3, 3), 2), {"feature_group_count": 4}, "for 4 input and 6 output channels"),
        ((8, (3, 3), 2), {"activation": "gelu"}, "route: unknown activation 'gelu'"),
        ((8, (3, 3), 2), {"top_k": 3}, "k is 3; pass 1 to 2"),
    ],
)
def test_refusals(unchecked, args, keywords, message):
    with pytest.raises(ValueError, match=message):
        nn.CondConv(*args, **keywords).init(KEY, X)


def test_refuses_wrong_inputs(unchecked):
    with pytest.raises(ValueError, match=r"CondConv: inputs are \(6, 5, 4\); pass \(b, h, w, c\)"):
        nn.CondConv(8, (3, 3), 2).init(KEY, X[0])
    message = "CondConv: routing was passed but num_experts is 1; pass num_experts of 2 or more"
    with pytest.raises(ValueError, match=message):
        nn.CondConv(8, (3, 3), 1).init(KEY, X, jnp.ones((3, 1)))
    with pytest.raises(ValueError, match=r"cond_conv: routing has 3 weights .*, experts are 2"):
        nn.CondConv(8, (3, 3), 2).init(KEY, X, jnp.ones((3, 3)))
