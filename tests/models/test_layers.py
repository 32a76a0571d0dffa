"""Padding, first values and drop path: how a network makes what all of its layers share."""

import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conditional_networks import KEY, NETWORKS, SIZE, small_network

from condconv_jax import models
from condconv_jax.models.inverted_residual import InvertedResidual, Stage
from condconv_jax.models.layers import PADDINGS, Layers
from condconv_jax.nn import ODConv


class One(linen.Module):
    """A function of `Layers` as a network."""

    function: object

    @linen.compact
    def __call__(self, x):
        return self.function(x)


def centres(padding, size, kernel_size, pool=False):
    """Which pixel each output has in the middle of its window, of stride 2."""
    layers = Layers(train=False, padding=padding)
    # Ascending from top left to bottom right.
    x = jnp.arange(1.0, size * size + 1).reshape(1, size, size, 1)
    if pool:
        return np.asarray(layers.max_pool(x, kernel_size, 2))[0, :, :, 0]
    module = One(lambda x: layers.conv(x, 1, kernel_size, stride=2, name="conv"))
    middle = kernel_size // 2
    kernel = jnp.zeros((kernel_size, kernel_size, 1, 1)).at[middle, middle].set(1.0)
    return np.asarray(module.apply({"params": {"conv": {"kernel": kernel}}}, x))[0, :, :, 0]


def test_padding_of_strided_convolutions_by_hand():
    # 4 pixels, 3x3 with stride 2: one pixel of padding, which TensorFlow puts at the end; or one
    # on either side, as PyTorch does.
    np.testing.assert_array_equal(centres("SAME", 4, 3), [[6, 8], [14, 16]])
    np.testing.assert_array_equal(centres("SYMMETRIC", 4, 3), [[1, 3], [9, 11]])
    # Of 5 pixels both pad two.
    for size, kernel_size in ((5, 3), (5, 1), (4, 1), (7, 5)):
        same, symmetric = (centres(padding, size, kernel_size) for padding in PADDINGS)
        np.testing.assert_array_equal(same, symmetric)
    # 6 pixels, 5x5: three, or two on either side.
    assert (centres("SAME", 6, 5)[0, 0], centres("SYMMETRIC", 6, 5)[0, 0]) == (8, 1)


def test_padding_of_pools_by_hand():
    # The largest value of 3x3 is at its lower right: of 4 pixels, rows and columns 2 and 3, or 1
    # and 3. Padding is never the largest, not even of negative values.
    np.testing.assert_array_equal(centres("SAME", 4, 3, pool=True), [[11, 12], [15, 16]])
    np.testing.assert_array_equal(centres("SYMMETRIC", 4, 3, pool=True), [[6, 8], [14, 16]])
    for padding in PADDINGS:
        pooled = Layers(train=False, padding=padding).max_pool(-jnp.ones((1, 4, 4, 1)), 3, 2)
        np.testing.assert_array_equal(pooled, -jnp.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_values_and_no_shapes(name):
    def program(padding):
        model = small_network(name, padding=padding)
        images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
        variables = jax.eval_shape(model.init, KEY, images)
        return jax.make_jaxpr(model.apply)(variables, images)

    same, symmetric = map(program, PADDINGS)
    assert same.in_avals == symmetric.in_avals
    assert same.out_avals == symmetric.out_avals
    assert str(same) != str(symmetric)


@pytest.mark.parametrize("experts", [0, 3])
def test_kernels_are_drawn_by_their_true_fan_out(experts):
    """Variance 2 / (kh kw f / g): of a depthwise 3x3 2/9, of a pointwise one 2/f."""
    layers = Layers(train=False, num_experts=experts)
    conv = functools.partial(layers.conv, conditional=experts > 0)

    def both(x):
        x = conv(x, 512, 3, name="depthwise", depthwise=True)
        return conv(x, 16, 1, name="pointwise")

    @jax.jit  # which leaves out all but the kernels
    def kernels():
        params = One(both).init(KEY, jnp.ones((1, 1, 1, 512)))["params"]
        return params["depthwise"]["kernel"], params["pointwise"]["kernel"]

    for drawn, variance in zip(kernels(), (2 / 9, 2 / 16), strict=True):
        # Of 4608 values or more: the deviation of a variance estimate is sqrt(2 / n), 2 %.
        for kernel in np.asarray(drawn) if experts else [drawn]:
            assert np.var(kernel) == pytest.approx(variance, rel=0.1)


def test_odconv_attends_as_its_network_says():
    model = small_network(
        "mobilenet_v1",
        "odconv",
        begin_layer=14,
        batch_norm_momentum=0.75,
        batch_norm_epsilon=0.5,
        routing=models.RoutingOptions(temperature=7.0),
    )
    found = {}

    def record(call, args, keywords, context):
        if isinstance(made := context.module, ODConv):
            numbers = (made.temperature, made.batch_norm_momentum, made.batch_norm_epsilon)
            found["/".join(made.path)] = numbers
        return call(*args, **keywords)

    with linen.intercept_methods(record):
        jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32))
    layers = ("layer_14/depthwise", "layer_14/pointwise")
    assert found == dict.fromkeys(layers, (7.0, 0.75, 0.5))


def block(drop_path, train, stride=1):
    stage = Stage(1, 3, 1, 1, 8, squeeze_excite=False)
    return InvertedResidual(8, stage, stride, Layers(train=train), linen.relu, drop_path=drop_path)


def test_drop_path_skips_whole_examples_and_scales_the_others():
    """Of y = x + f(x), f(x) is 0 for some examples, and f(x) / (1 - rate) for the others."""
    rate = 0.75
    x = jax.random.normal(KEY, (64, 4, 4, 8))
    variables = block(0.0, train=False).init(KEY, x, None)
    run = lambda block, **options: block.apply(
        variables, x, None, mutable=["batch_stats"] if block.layers.train else False, **options
    )
    whole, _ = run(block(0.0, train=True))
    dropped, _ = run(block(rate, train=True), rngs={"dropout": jax.random.key(1)})
    branch, left = np.asarray(whole - x), np.asarray(dropped - x)
    skipped = (left == 0).all(axis=(1, 2, 3))
    # 64 examples: 16 kept, with a standard deviation of 3.5.
    assert 5 <= (~skipped).sum() <= 27
    # Differences of numbers near 1 in float32.
    np.testing.assert_allclose(left[~skipped], branch[~skipped] / (1 - rate), atol=1e-5)
    # Evaluation is that of the block that drops nothing.
    np.testing.assert_array_equal(run(block(rate, train=False)), run(block(0.0, train=False)))


def test_a_block_without_a_skip_drops_nothing():
    x = jax.random.normal(KEY, (4, 4, 4, 8))
    variables = block(0.0, train=False).init(KEY, x, None)
    with_rate, without = (
        block(rate, train=True, stride=2).apply(variables, x, None, mutable=["batch_stats"])[0]
        for rate in (0.99, 0.0)
    )
    np.testing.assert_array_equal(with_rate, without)


def test_drop_path_rises_with_the_block():
    """0.2 times index over number of blocks, as the official code has it (16 blocks from 0)."""
    model = models.create("efficientnet_b0", drop_path=0.2)
    rates = {}

    def record(call, args, keywords, context):
        if isinstance(context.module, InvertedResidual):
            rates[context.module.name] = context.module.drop_path
        return call(*args, **keywords)

    with linen.intercept_methods(record):
        jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert rates == {f"layer_{n + 2}": pytest.approx(0.2 * n / 16) for n in range(16)}


def test_layers_refuse_an_unknown_kind():
    layers = Layers(train=False, num_experts=2, cond_layer="dense")
    module = One(lambda x: layers.conv(x, 4, 3, name="conv", conditional=True))
    with pytest.raises(ValueError, match="Layers: unknown cond_layer 'dense'; choose one of"):
        module.init(KEY, jnp.ones((1, 4, 4, 3)))


@pytest.mark.parametrize("group", [0, 2])
def test_first_biases_of_batch_norms_are_those_before_activations(group):
    layers = Layers(train=False, batch_norm_bias=1.0, batch_norm_group=group)
    for options, want in (({}, 1.0), ({"linear": True}, 0.0)):
        module = One(lambda x, options=options: layers.norm(x, name="bn", **options))
        params = module.init(KEY, jnp.ones((2, 1, 1, 3)))["params"]["bn"]
        np.testing.assert_array_equal(params["bias"], [want] * 3)
        np.testing.assert_array_equal(params["scale"], [1.0] * 3)


@pytest.mark.parametrize(
    ("name", "linear"),
    [
        ("mobilenet_v1", set()),
        ("efficientnet_b0", {"project_bn"}),
        ("resnet50", {"expand_bn", "projection_bn"}),
    ],
)
def test_networks_say_which_batch_norms_are_linear(name, linear):
    model = small_network(name, num_experts=0, batch_norm_bias=1.0)

    names = []

    @jax.jit  # which leaves out all but the biases
    def biases():
        params = model.init(KEY, jnp.ones((1, SIZE, SIZE, 3)))["params"]
        leaves = jax.tree_util.tree_leaves_with_path(params)
        found = [(path[-2].key, leaf) for path, leaf in leaves if path[-1].key == "bias"]
        names.extend(name for name, _ in found)
        return [leaf for _, leaf in found]

    norms = [(n, b) for b, n in zip(biases(), names, strict=True) if n.endswith("_bn")]
    assert {key for key, _ in norms} > linear
    for key, bias in norms:
        np.testing.assert_array_equal(bias, np.full(bias.shape, 0.0 if key in linear else 1.0))
