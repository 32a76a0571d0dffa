"""DynamicFilterConv: a generated kernel, never generated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from condconv_jax import nn
from condconv_jax.analysis import layer_costs
from condconv_jax.nn.dynamic_filter import DynamicFilterConv
from condconv_jax.ops.per_example import per_example_conv

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 6, 5, 4)) + 0.3
CASES = {
    "dense": (6, (3, 2), {"strides": (2, 1)}),
    "1x1": (6, 1, {"padding": ((1, 0), (0, 0)), "use_bias": False}),
    "depthwise": (8, 3, {"feature_group_count": 4, "strides": 2, "padding": 1}),
    "grouped": (6, 3, {"feature_group_count": 2, "padding": "VALID"}),
}


def layer(name, **options):
    features, kernel_size, keywords = CASES[name]
    return DynamicFilterConv(features, kernel_size, **keywords | options)


def drawn(module, x=X, seed=0):
    """Variables without a compiled `init`, biases that are not zero among them."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, KEY, x)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape), a.dtype), shapes)


def apply(module, variables, x):
    return jax.jit(module.apply)(variables, x)


def generated(params, x):
    """The kernels (b, kh, kw, c/g, f), by the two dense layers of the paper."""
    pooled = np.asarray(x).mean(axis=(1, 2))
    hidden = pooled @ np.asarray(params["router"]["kernel"]) + np.asarray(params["router"]["bias"])
    stack = np.asarray(params["kernel"])
    matrix, bias = stack[:-1].reshape(len(stack) - 1, -1), stack[-1].reshape(-1)
    kernels = np.maximum(hidden, 0) @ matrix + bias
    return jnp.asarray(kernels.reshape(-1, *stack.shape[1:]))


@pytest.mark.parametrize("name", CASES)
def test_equals_generating_the_kernel_outright(name):
    module = layer(name, hidden=5)
    variables = drawn(module)
    got, state = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=["routing"]))(
        variables, X
    )
    keywords = {k: v for k, v in CASES[name][2].items() if k != "use_bias"}
    want = per_example_conv(X, generated(variables["params"], X), method="spatial", **keywords)
    want = want + variables["params"].get("bias", jnp.zeros(1)).reshape(1, 1, 1, -1)
    # Sums of at most 36 products of kernels that are sums of 6.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state["routing"]["weights"][:, -1], np.ones(3))


def test_golden():
    # Pooled 2; hidden relu(2 * 1.5 - 1, -2) = (2, 0); kernel 2 * 3 + 0 * 7 + 10 = 16, bias 1.
    params = {
        "router": {"kernel": jnp.array([[1.5, -1.0]]), "bias": jnp.array([-1.0, 0.0])},
        "kernel": jnp.array([3.0, 7.0, 10.0]).reshape(3, 1, 1, 1, 1),
        "bias": jnp.array([1.0]),
    }
    x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    y = apply(DynamicFilterConv(1, 1, hidden=2), {"params": params}, x)
    np.testing.assert_allclose(y[0, 0, :, 0], [17, 49], rtol=1e-6)


def test_parameters():
    params = jax.eval_shape(layer("depthwise").init, KEY, X)["params"]
    assert jax.tree.map(lambda a: a.shape, params) == {
        "router": {"kernel": (4, 8), "bias": (8,)},
        "kernel": (9, 3, 3, 1, 8),
        "bias": (8,),
    }


def test_the_mixture_holds_no_kernel_per_example():
    module = layer("dense", method="mixture")
    variables = drawn(module)
    program = str(jax.make_jaxpr(module.apply)(variables, X))
    assert "9,3,2,4,6" in program  # hidden units and bias
    assert "3,3,2,4,6" not in program  # examples
    want = apply(layer("dense"), variables, X)
    np.testing.assert_allclose(apply(module, variables, X), want, rtol=1e-4, atol=1e-5)


def test_starts_at_the_scale_of_a_convolution():
    # One position, so that pooled features are the inputs, of mean square 1.
    x = jax.random.normal(KEY, (64, 1, 1, 128))
    first = jax.jit(lambda x: DynamicFilterConv(256, 1, hidden=16).init_with_output(KEY, x)[0])
    y = first(x)
    # LeCun's kernels keep the variance. 64 draws of the hidden layer's mean square are within 10 %.
    assert np.var(y) == pytest.approx(1, rel=0.1)
    # Of nothing pooled the constant part is left: half of the variance.
    checkers = x * jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1)
    assert np.var(first(checkers)) == pytest.approx(0.5, rel=0.1)


def test_gradients():
    with jax.enable_x64():
        module = layer("dense", hidden=3, method="portable")
        double = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64), tree)
        variables, x = double(drawn(module, seed=1)), double(X[:2])
        # Hidden units away from the kink of their ReLU, some on and some off.
        variables["params"]["router"]["bias"] = jnp.array([1.0, -2.0, 2.0])
        check_grads(jax.jit(module.apply), (variables, x), 1, modes=["rev"], rtol=1e-6)


def test_madds_by_hand():
    # 3 -> 5 channels, 3x3, 2x3 outputs of 4x6; a kernel has 135 numbers.
    module = DynamicFilterConv(5, 3, hidden=7, strides=2)
    outputs = 2 * 3 * 135
    costs = lambda form: [
        (cost.name, cost.conv, cost.mixing, cost.routing)
        for cost in layer_costs(module, (4, 6), form=form)
    ]
    router = ("router", 0, 0, 3 * 7)
    assert costs("conv") == [router, ("", outputs, 8 * 135, 0)]
    assert costs("mixture") == [router, ("", 8 * outputs, 0, 0)]


def test_compressed_and_in_low_precision():
    module = layer("dense")
    variables = drawn(module)
    want = apply(module, variables, X)
    int8 = {"params": nn.compress_experts(variables["params"], "int8")}
    # Each weight is off by half a level of 127.
    error = np.abs(apply(module, int8, X) - want).max()
    assert 0 < error < 0.02 * np.abs(want).max()
    y = apply(layer("dense", dtype=jnp.bfloat16), variables, X)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), want, atol=0.05 * np.abs(want).max())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (DynamicFilterConv(6, 3, hidden=0), "DynamicFilterConv: hidden is 0; pass at least 1"),
        (DynamicFilterConv(6, (3, 3, 3)), r"DynamicFilterConv: kernel_size is .*pass \(kh, kw\)"),
        (DynamicFilterConv(6, 0), "DynamicFilterConv: kernel_size is 0"),
        (DynamicFilterConv(6, 3, feature_group_count=4),
         "DynamicFilterConv: feature_group_count is 4 for 4 input and 6 output channels; pass a"),
        (DynamicFilterConv(0, 3), "DynamicFilterConv: .* at least 1 output channel"),
        (DynamicFilterConv(6, 3, method="mixtur"), "unknown method 'mixtur'.*mean 'mixture'"),
    ],
)  # fmt: skip
def test_refusals(module, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, KEY, X)


def test_refuses_a_single_image(unchecked):
    with pytest.raises(ValueError, match=r"DynamicFilterConv: inputs are \(6, 5, 4\); pass \(b,"):
        jax.eval_shape(layer("dense").init, KEY, X[0])
