"""A static network as a CondConv network that computes the same function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from condconv_jax import models, nn
from condconv_jax.interop import upcycle
from condconv_jax.interop.upcycling import _experts, _initial

KEY = jax.random.key(0)
EXPERTS = 3
AT_ZERO = {"sigmoid": 1 / 2, "softmax": 1 / EXPERTS}
# Of the largest output. The mixed kernel is the trained one up to the last digit.
LAYER = {"float32": 1e-6, "float64": 1e-14}
# Tens of layers later.
NETWORK = {"float32": 1e-5, "float64": 1e-13}


def assert_near(got, want, tolerance):
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


# One layer.

CONVOLUTIONS = {
    "dense": {"features": 5, "kernel_size": 3, "strides": 2},
    "depthwise": {"features": 4, "kernel_size": (5, 3), "feature_group_count": 4},
    "grouped": {"features": 6, "kernel_size": 3, "feature_group_count": 2, "padding": 1},
    "pointwise": {"features": 7, "kernel_size": 1},
}


@pytest.mark.parametrize(
    ("activation", "noise"), [("sigmoid", 0.0), ("sigmoid", 0.5), ("softmax", 0.5)]
)
@pytest.mark.parametrize("layer", [*CONVOLUTIONS, "classifier"])
def test_a_layer_with_a_router_of_zeros_is_the_static_layer(layer, activation, noise, dtype):
    draw = np.random.default_rng(0)
    if layer == "classifier":
        x = jnp.asarray(draw.standard_normal((3, 4)), dtype)
        make = functools.partial(nn.CondDense, 6, param_dtype=dtype)
    else:
        x = jnp.asarray(draw.standard_normal((3, 9, 8, 4)), dtype)
        make = functools.partial(nn.CondConv, **CONVOLUTIONS[layer], param_dtype=dtype)
    static = make(num_experts=0)
    like = jax.eval_shape(static.init, KEY, x)["params"]
    params = {key: jnp.asarray(draw.standard_normal(x.shape), dtype) for key, x in like.items()}
    mixed = make(num_experts=EXPERTS, activation=activation)
    at_zero = AT_ZERO[activation]
    upcycled = {
        key: jnp.asarray(
            _experts(
                np.asarray(value), EXPERTS, at_zero, noise if key == "kernel" else 0.0, key, 0
            ),
            dtype,
        )
        for key, value in params.items()
    }
    zeros = {"kernel": jnp.zeros((4, EXPERTS), dtype), "bias": jnp.zeros(EXPERTS, dtype)}
    got = mixed.apply({"params": {**upcycled, "router": zeros}}, x)
    assert_near(got, static.apply({"params": params}, x), LAYER[dtype])
    different = np.ptp(upcycled["kernel"], axis=0).max()
    assert (different > 0.1) == (noise > 0)


@pytest.mark.parametrize("weight", [1 / 2, 1 / 32])
@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("num_experts", [2, 32])
def test_what_tells_experts_apart(num_experts, noise, weight):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 16, 64))
    mean = kernel / (num_experts * weight)
    d = _experts(kernel, num_experts, weight, noise, "path", 0) - mean
    rms = np.sqrt(np.mean(mean**2))
    np.testing.assert_allclose(d.sum(axis=0), 0, atol=1e-13 * rms * num_experts)
    # Two experts of 9216 numbers each, which are each other's negatives: 0.7 % is one deviation.
    np.testing.assert_allclose(d.std(axis=(1, 2, 3, 4)), noise * rms, rtol=0.03)
    # No expert is another's copy: any two are as far apart as independent ones less their mean.
    apart = np.std(d[0] - d[1])
    np.testing.assert_allclose(
        apart, noise * rms * np.sqrt(2 * num_experts / (num_experts - 1)), rtol=0.03
    )


def test_kernels_of_zeros_stay_zeros():
    experts = _experts(np.zeros((1, 1, 2, 2)), EXPERTS, 0.5, 0.5, "path", 0)
    np.testing.assert_array_equal(experts, np.zeros((EXPERTS, 1, 1, 2, 2)))


# Whole networks.

# Of every family, as narrow and short as it goes.
FAMILIES = {
    "mobilenet_v1": {"width": 1 / 16},
    "mobilenet_v2": {"width": 0.1, "depth": 0.1},
    "mnasnet_a1": {"width": 0.1, "depth": 0.1},
    "efficientnet_b0": {"width": 0.1, "depth": 0.1},
    "resnet50": {"width": 1 / 16, "depth": 0.1},
}
# The rest of the options, with which one family stands for all.
ONE = "mobilenet_v1"
IMAGES = np.random.default_rng(1).standard_normal((4, 32, 32, 3)).astype(np.float32)


def build(name, **options):
    """A network of few classes, and its variables' shapes."""
    model = models.create(name, 5, **{**FAMILIES[name], **options})
    return model, nn.variable_shapes(model, 32)


@functools.cache
def trained(name):
    """A static network with drawn weights, and its logits."""
    model, like = build(name)
    draw = np.random.default_rng(2)

    def leaf(path, like):
        values = draw.standard_normal(like.shape)
        if path[-1].key in ("scale", "var"):
            values = 1 + 0.2 * np.tanh(values)
        elif path[-1].key == "kernel":
            values *= 1.5 / np.sqrt(max(1, np.prod(like.shape[:-1])))
        else:
            values *= 0.2
        return values.astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(leaf, like)
    logits = np.asarray(jax.jit(model.apply)(variables, IMAGES))
    # Images and classes are told apart, so networks would be too.
    assert logits.std(axis=0).min() > 1e-3 * np.abs(logits).max()
    return variables, logits


def upcycled(name, noise=0.1, seed=0, **options):
    model, like = build(name, num_experts=EXPERTS, **options)
    return model, upcycle(trained(name)[0], model, like, noise=noise, seed=seed)


def assert_same_function(name, **options):
    model, variables = upcycled(name, noise=0.5, **options)
    _, like = build(name, num_experts=EXPERTS, **options)
    assert jax.tree.structure(variables) == jax.tree.structure(like)
    for got, want in zip(jax.tree.leaves(variables), jax.tree.leaves(like), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert_near(jax.jit(model.apply)(variables, IMAGES), trained(name)[1], NETWORK["float32"])
    return variables


@pytest.mark.parametrize(
    "name",
    # MnasNet is MobileNetV2 with squeeze-and-excitation, EfficientNet-B0 too.
    [n if n != "mnasnet_a1" else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
def test_every_network_computes_what_it_did(name):
    variables = assert_same_function(name)
    routers = [key for key in variables["params"] if key.startswith("router_")]
    assert routers


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_to_the_last_digits_in_float64(name):
    static, _ = trained(name)
    model, like = build(name, num_experts=EXPERTS)
    with jax.enable_x64(True):
        double = functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf, np.float64))
        wide = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float64), like)
        variables = upcycle(static, model, wide, noise=0.5)
        got = jax.jit(model.clone(dtype="float64").apply)(variables, IMAGES)
        want = jax.jit(build(name)[0].clone(dtype="float64").apply)(double(static), IMAGES)
    assert_near(got, want, NETWORK["float64"])


@pytest.mark.parametrize(
    "routing",
    [
        {"activation": "softmax", "initial_temperature": 30.0, "anneal_steps": 9, "noise": "shake"},
        {"hidden": "small", "hierarchical": True},
        {"sharing": "partial", "hierarchical": True},
        pytest.param({"sharing": "single", "hidden": "medium"}, marks=pytest.mark.slow),
    ],
    ids=lambda routing: "-".join(routing),
)
def test_other_routing(routing):
    # Three layers route: enough for what they share, in a third of the time.
    variables = assert_same_function(ONE, begin_layer=13, routing=routing)
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    for path, array in flat.items():
        if path.startswith("router_"):
            # A hidden layer of zeros would never get a gradient.
            assert array.any() == path.endswith("hidden/kernel"), path


def test_hidden_layers_of_routers_keep_the_size_of_their_inputs():
    like = jax.ShapeDtypeStruct((400, 25), np.float32)
    kernel = _initial("params/router_3/hidden/kernel", like, 0)
    # sqrt(2 / 400) by He et al., to the 1 % that 10,000 numbers tell.
    assert kernel.std() == pytest.approx(np.sqrt(2 / 400), rel=0.03)
    assert abs(kernel.mean()) < 0.03 * kernel.std()


@functools.cache
def gradients_of(model):
    """(params, batch_stats) -> the gradients of some loss."""

    def loss(params, batch_stats):
        logits = model.apply({"params": params, "batch_stats": batch_stats}, IMAGES)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0])

    return jax.jit(jax.grad(loss))


def spread(tree):
    """Over the experts, the largest difference in each conditional array and each router."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    experts = [np.ptp(flat[path], 0).max() for path in ("classifier/kernel", "classifier/bias")]
    experts.append(np.ptp(flat["layer_14/pointwise/kernel"], 0).max())
    routers = [np.ptp(flat[f"router_{n}/bias"], -1).max() for n in (14, 15)]
    return np.array(experts), np.array(routers)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_noise_is_what_training_tells_experts_apart_by(noise):
    model, variables = upcycled(ONE, noise, begin_layer=14)
    params, stats = variables["params"], variables["batch_stats"]
    step = gradients_of(model)
    first = step(params, stats)
    moved = jax.tree.map(lambda p, g: p + 0.01 * g, params, first)
    experts, routers = spread(first)
    # All experts have the same weight at first, and so the same gradient; what differs is how the
    # loss depends on each weight, which is a product with the expert.
    assert experts.max() < 1e-7
    if noise:
        assert routers.min() > 1e-5
        assert spread(step(moved, stats))[0].min() > 1e-5
    else:
        # Equal experts get equal gradients for ever.
        assert routers.max() < 1e-7
        assert max(part.max() for part in spread(step(moved, stats))) < 1e-6
        assert spread(moved)[0].max() < 1e-6


def test_the_seed_says_what_noise():
    _, first = upcycled(ONE, begin_layer=14)
    _, again = upcycled(ONE, begin_layer=14)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    _, other = upcycled(ONE, begin_layer=14, seed=1)
    kernel = lambda variables: variables["params"]["layer_14"]["pointwise"]["kernel"]
    assert np.abs(kernel(first) - kernel(other)).max() > 0.01
    # A layer's noise is its own: that of no other layer, and the same beside other layers.
    _, more = upcycled(ONE, begin_layer=13)
    np.testing.assert_array_equal(kernel(first), kernel(more))
    # What of the first expert is noise, in the order that it was drawn in; 2048 numbers of each
    # layer, so that a correlation has a deviation of 1 / sqrt(2048).
    one, two = (
        (experts - experts.mean(axis=0))[0].ravel()[:2048]
        for experts in (kernel(more), more["params"]["layer_13"]["pointwise"]["kernel"])
    )
    assert one.shape == two.shape == (2048,)
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(2048)


def test_biases_have_no_noise():
    _, variables = upcycled(ONE, noise=0.5, begin_layer=15)
    bias = variables["params"]["classifier"]["bias"]
    static = trained(ONE)[0]["params"]["classifier"]["bias"]
    assert bias.shape == (EXPERTS, 5)
    np.testing.assert_allclose(bias, np.tile(2 / EXPERTS * static, (EXPERTS, 1)), rtol=1e-6)


# Refusals.


@pytest.mark.parametrize(
    ("options", "noise", "message"),
    [
        ({}, -0.1, r"^upcycle: noise is -0.1; pass 0 or more$"),
        ({"num_experts": 0}, 0.1, r"^upcycle: the network has 0 experts, .* num_experts of 2"),
        ({"num_experts": 1}, 0.1, r"^upcycle: the network has 1 experts, .* num_experts of 2"),
        ({"cond_layer": "odconv"}, 0.1, r"cond_layer 'odconv'; pass one with CondConv layers"),
        (
            {"routing": {"activation": "relu"}},
            0.1,
            r"routing.activation 'relu' is 0 at 0, .*; use 'sigmoid' or 'softmax'$",
        ),
        ({"routing": {"activation": "tanh"}}, 0.1, r"routing.activation 'tanh' is 0 at 0, "),
        (
            {"routing": {"top_k": 2}},
            0.1,
            r"routing.top_k 2 would leave experts out .*; upcycle with top_k=0 and set it in",
        ),
    ],
)
def test_what_cannot_compute_the_same(options, noise, message):
    model, like = build(ONE, **{"num_experts": EXPERTS, **options})
    with pytest.raises(ValueError, match=message):
        upcycle(trained(ONE)[0], model, like, noise=noise)


def test_another_network_is_refused_with_everything_that_differs():
    model, like = build(ONE, num_experts=EXPERTS, begin_layer=15)
    flat = traverse_util.flatten_dict(trained(ONE)[0], sep="/")
    del flat["params/layer_2/depthwise/kernel"]
    flat["params/layer_3/depthwise_bn/scale"] = np.zeros(3)
    flat["params/classifier/kernel"] = np.zeros((64, 7))
    flat["params/head/bias"] = np.zeros(2)
    static = traverse_util.unflatten_dict(flat, sep="/")
    with pytest.raises(ValueError, match=r"^upcycle: the static network is another") as caught:
        upcycle(static, model, like)
    _, *problems, last = str(caught.value).splitlines()
    assert sorted(problems) == [
        "  params/classifier/kernel: (64, 7), wanted (3, 64, 5) or its experts",
        "  params/head/bias: extra, (2,)",
        "  params/layer_2/depthwise/kernel: missing, wanted (3, 3, 1, 8)",
        "  params/layer_3/depthwise_bn/scale: (3,), wanted (8,) or its experts",
    ]
    assert last == "change no options but those of experts and routing"


def test_a_conditional_network_is_refused():
    """Its routers would start anew, and it would compute something else."""
    _, variables = upcycled(ONE, begin_layer=14)
    model, like = build(ONE, num_experts=EXPERTS, begin_layer=14)
    with pytest.raises(
        ValueError, match=r"^upcycle: the network has router_14, router_15 already; pass a static"
    ):
        upcycle(variables, model, like)
