"""ODConv: four attentions, which of them there are, and what they weight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from condconv_jax import nn, ops
from condconv_jax.analysis import layer_costs
from condconv_jax.nn.odconv import ODConv

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 6, 5, 4))
CASES = {
    "dense": (6, (3, 2), {"strides": (2, 1)}),
    "one expert": (6, 3, {"num_experts": 1, "padding": "VALID"}),
    "1x1": (6, 1, {"num_experts": 3, "strides": 2, "use_bias": False}),
    "1x1, one expert": (6, 1, {"num_experts": 1}),
    "depthwise": (4, 3, {"feature_group_count": 4, "strides": 2, "padding": 1}),
    "depthwise, twice": (8, 3, {"feature_group_count": 4, "num_experts": 2}),
    "grouped": (6, 3, {"feature_group_count": 2}),
}
# As modules/odconv.py of OSVAI/ODConv makes them.
ATTENTIONS = {
    "dense": {"channel", "filter", "spatial", "expert"},
    "one expert": {"channel", "filter", "spatial"},
    "1x1": {"channel", "filter", "expert"},
    "1x1, one expert": {"channel", "filter"},
    "depthwise": {"channel", "spatial", "expert"},
    "depthwise, twice": {"channel", "filter", "spatial", "expert"},
    "grouped": {"channel", "filter", "spatial", "expert"},
}


def layer(name, **options):
    features, kernel_size, keywords = CASES[name]
    return ODConv(features, kernel_size, **keywords | options)


def drawn(module, x=X, seed=0):
    """Variables without a compiled `init`; variances positive."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, KEY, x)
    draw = lambda a: jnp.asarray(0.7 * rng.standard_normal(a.shape), a.dtype)
    variables = jax.tree.map(draw, shapes)
    norm = variables["batch_stats"]["router"]["norm"]
    norm["var"] = 0.5 + jnp.abs(norm["var"])
    return variables


def apply(module, variables, x=X):
    return jax.jit(module.apply)(variables, x)


def attention(variables, x, temperature=1.0, epsilon=1e-5):
    """Every attention by its formula, in numpy; (b, size) by name."""
    params, stats = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
    router, norm = params["router"], stats["router"]["norm"]
    trunk = np.asarray(x).mean(axis=(1, 2)) @ router["reduce"]["kernel"]
    trunk = (trunk - norm["mean"]) / np.sqrt(norm["var"] + epsilon)
    trunk = np.maximum(trunk * router["norm"]["scale"] + router["norm"]["bias"], 0)
    weights = {}
    for name in set(router) - {"reduce", "norm"}:
        logits = (trunk @ router[name]["kernel"] + router[name]["bias"]) / temperature
        if name == "expert":
            weights[name] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        else:
            weights[name] = 1 / (1 + np.exp(-logits))
    return weights


def by_hand(name, variables, x, **options):
    """The paper's product of kernel and attentions, for one example after another."""
    features, _, keywords = CASES[name]
    keywords = {k: v for k, v in keywords.items() if k not in ("num_experts", "use_bias")}
    weights = attention(variables, x, **options)
    stack = np.asarray(variables["params"]["kernel"])
    stack = stack if stack.ndim == 5 else stack[None]
    kh, kw, in_channels, _ = stack.shape[1:]
    groups = keywords.get("feature_group_count", 1)
    rows = []
    for b in range(len(x)):
        one = {k: v[b] for k, v in weights.items()}
        kernel = np.einsum("e,ehwcf->hwcf", one.get("expert", np.ones(1)), stack)
        kernel = kernel * one.get("spatial", np.ones(kh * kw)).reshape(kh, kw, 1, 1)
        kernel = kernel * one.get("filter", np.ones(features))
        # Output f reads the inputs of its group: those that its part of the attention is to.
        channel = one["channel"].reshape(groups, in_channels)
        kernel = kernel * np.repeat(channel, features // groups, axis=0).T
        rows.append(ops.conv(x[b : b + 1], jnp.asarray(kernel), method="reference", **keywords))
    bias = variables["params"].get("bias", jnp.zeros(1))
    return jnp.concatenate(rows) + bias.reshape(1, 1, 1, -1)


@pytest.mark.parametrize("name", CASES)
def test_is_the_papers_product_of_kernel_and_attentions(name):
    module = layer(name)
    variables = drawn(module)
    assert set(variables["params"]["router"]) - {"reduce", "norm"} == ATTENTIONS[name]
    got, state = jax.jit(lambda v, x: module.apply(v, x, mutable=["routing"]))(variables, X)
    # Sums of at most 54 products, with sigmoids and a softmax of float32.
    np.testing.assert_allclose(got, by_hand(name, variables, X), rtol=1e-4, atol=1e-5)
    weights = attention(variables, X)
    assert bool(state) == ("expert" in weights)
    if state:
        np.testing.assert_allclose(state["routing"]["weights"], weights["expert"], rtol=1e-4)


@pytest.mark.parametrize("name", ["dense", "1x1", "depthwise"])
def test_of_ones_and_uniform_attention_is_a_convolution_with_the_mean_kernel(name):
    module = layer(name, use_bias=False)
    variables = drawn(module)
    router = variables["params"]["router"]
    for head in ATTENTIONS[name]:
        # sigmoid(100) is 1 in float32; equal logits share the softmax evenly.
        router[head] = {
            "kernel": jnp.zeros_like(router[head]["kernel"]),
            "bias": jnp.full_like(router[head]["bias"], 100),
        }
    keywords = {k: v for k, v in CASES[name][2].items() if k not in ("num_experts", "use_bias")}
    want = ops.conv(X, variables["params"]["kernel"].mean(axis=0), **keywords)
    np.testing.assert_allclose(apply(module, variables), want, rtol=1e-4, atol=1e-5)


def test_temperature_may_be_traced():
    variables = drawn(layer("dense"))
    run = jax.jit(lambda t: layer("dense", temperature=t).apply(variables, X))
    for temperature in (1.0, 30.0):
        want = by_hand("dense", variables, X, temperature=temperature)
        np.testing.assert_allclose(run(temperature), want, rtol=1e-4, atol=1e-5)


def test_parameters_and_the_width_of_the_trunk():
    shapes = lambda module, x: jax.tree.map(jnp.shape, jax.eval_shape(module.init, KEY, x))
    variables = shapes(ODConv(6, (3, 2)), X)
    assert variables["params"] == {
        "kernel": (4, 3, 2, 4, 6),
        "bias": (6,),
        "router": {
            "reduce": {"kernel": (4, 16)},  # 4 / 16 channels, but at least 16
            "norm": {"scale": (16,), "bias": (16,)},
            "channel": {"kernel": (16, 4), "bias": (4,)},
            "filter": {"kernel": (16, 6), "bias": (6,)},
            "spatial": {"kernel": (16, 6), "bias": (6,)},
            "expert": {"kernel": (16, 4), "bias": (4,)},
        },
    }
    assert variables["batch_stats"] == {"router": {"norm": {"mean": (16,), "var": (16,)}}}
    assert shapes(ODConv(6, 3, num_experts=1), X)["params"]["kernel"] == (3, 3, 4, 6)
    wide = functools.partial(jnp.zeros, (1, 2, 2, 330))
    assert shapes(ODConv(6, 1), wide())["params"]["router"]["reduce"]["kernel"] == (330, 20)
    narrow = shapes(ODConv(6, 1, reduction=0.1), wide())
    assert narrow["params"]["router"]["reduce"]["kernel"] == (330, 33)


def test_batch_norm_in_training():
    module = layer("1x1", batch_norm_momentum=0.75, batch_norm_epsilon=0.01)
    variables = drawn(module)
    run = lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"])
    y, state = jax.jit(run)(variables, X)
    trunk = np.asarray(X).mean(axis=(1, 2)) @ variables["params"]["router"]["reduce"]["kernel"]
    statistics = {"mean": trunk.mean(axis=0), "var": trunk.var(axis=0)}
    old, new = (s["batch_stats"]["router"]["norm"] for s in (variables, state))
    for name, value in statistics.items():
        want = 0.75 * old[name] + 0.25 * value
        np.testing.assert_allclose(new[name], want, rtol=1e-4, atol=1e-5)
    of_the_batch = {**variables, "batch_stats": {"router": {"norm": statistics}}}
    want = by_hand("1x1", of_the_batch, X, epsilon=0.01)
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-4)


def test_a_batch_of_one_in_training_is_blind_to_its_input():
    module = layer("1x1")
    variables = drawn(module)

    @jax.jit
    def gradient(params, x):
        run = lambda p: module.apply({**variables, "params": p}, x, train=True, mutable=True)[0]
        return jax.grad(lambda p: (run(p) ** 2).sum())(params)["router"]["reduce"]["kernel"]

    np.testing.assert_allclose(gradient(variables["params"], X[:1]), jnp.zeros((4, 16)), atol=1e-5)
    assert np.abs(gradient(variables["params"], X)).max() > 0.1


def test_gradients():
    with jax.enable_x64():
        module = layer("dense", method="portable")
        double = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64), tree)
        variables, x = double(drawn(module, seed=2)), double(X)
        stats = variables["batch_stats"]
        # Units of the trunk away from the kink of their ReLU, some on and some off.
        norm = variables["params"]["router"]["norm"]
        norm["scale"] = 0.3 * norm["scale"]
        norm["bias"] = jnp.where(jnp.arange(16) % 3 == 0, -3.0, 3.0)

        @jax.jit
        def run(params, x):
            variables = {"params": params, "batch_stats": stats}
            return module.apply(variables, x, train=True, mutable=["batch_stats"])[0]

        check_grads(run, (variables["params"], x), 1, modes=["rev"], rtol=1e-5)


def test_madds_by_hand():
    # Inputs 4x6x3, trunk of 16. A 3x3 kernel to 5 channels has 135 numbers, a 1x1 15.
    costs = lambda module, **form: {
        part: sum(getattr(layer, part) for layer in layer_costs(module, (4, 6), **form))
        for part in ("conv", "mixing", "routing")
    }
    attention = 16 * (3 + 3 + 5)
    dense = {"conv": 2 * 3 * 135, "mixing": 4 * 135, "routing": attention + 16 * (9 + 4)}
    for form in ("conv", "mixture"):
        assert costs(ODConv(5, 3, strides=2), form=form) == dense
    pointwise = {"conv": 24 * 15, "mixing": 4 * 15, "routing": attention + 16 * 4}
    assert costs(ODConv(5, 1)) == pointwise
    mixture = pointwise | {"conv": 4 * 24 * 15, "mixing": 0}
    assert costs(ODConv(5, 1), form="mixture") == mixture
    single = {"conv": 24 * 15, "mixing": 0, "routing": attention}
    assert costs(ODConv(5, 1, num_experts=1)) == single
    depthwise = {"conv": 24 * 27, "mixing": 4 * 27, "routing": 16 * (3 + 3 + 9 + 4)}
    assert costs(ODConv(3, 3, feature_group_count=3)) == depthwise


@pytest.mark.parametrize("name", ["dense", "1x1"])
def test_compressed(name):
    module = layer(name)
    variables = drawn(module)
    want = apply(module, variables)
    int8 = {**variables, "params": nn.compress_experts(variables["params"], "int8")}
    # Each weight is off by half a level of 127.
    error = np.abs(apply(module, int8) - want).max()
    assert 0 < error < 0.02 * np.abs(want).max()


@pytest.mark.parametrize("name", ["dense", "1x1, one expert"])
def test_attention_asks_for_all_bits(name):
    # A CPU multiplies float32 in full whether asked to or not; accelerators do as they are told.
    variables = jax.eval_shape(layer(name).init, KEY, X)
    program = str(jax.make_jaxpr(layer(name, method="reference").apply)(variables, X))
    # The trunk's product, and each attention's.
    highest = "precision=(Precision.HIGHEST, Precision.HIGHEST)"
    assert program.count(highest) == 1 + len(ATTENTIONS[name])


def test_low_precision():
    variables = drawn(layer("dense"))
    y = apply(layer("dense", dtype=jnp.bfloat16), variables)
    assert y.dtype == jnp.bfloat16
    want = by_hand("dense", variables, X)
    # Inputs, kernels, attentions and their products, of 8 bits each.
    np.testing.assert_allclose(np.float32(y), want, atol=0.05 * np.abs(want).max())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ODConv(6, 3, num_experts=0), "ODConv: num_experts is 0; pass at least 1"),
        (ODConv(6, 3, reduction=0.0), "ODConv: reduction is 0.0; pass a positive number"),
        (ODConv(6, 3, temperature=-1.0), "ODConv: temperature is -1.0; pass a positive number"),
        (ODConv(6, 3, feature_group_count=4), "ODConv: feature_group_count is 4 for 4 input and 6"),
        (ODConv(6, 3, method="tile"), "per_example_conv: unknown method 'tile'.*mean 'tiled'"),
        (ODConv(6, 1, num_experts=1, method="tile"), "ODConv: unknown method 'tile'"),
    ],
)
def test_refusals(module, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, KEY, X)
