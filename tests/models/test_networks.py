"""Every network: its layers are those of its publication, and it trains."""

import functools
import json
import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_networks import by_path

from condconv_jax import models
from condconv_jax.models.efficientnet import EfficientNetB0
from condconv_jax.models.inverted_residual import InvertedResidual, scale_channels
from condconv_jax.models.layers import Layers
from condconv_jax.models.mnasnet import MnasNetA1
from condconv_jax.models.resnet import Bottleneck

KEY = jax.random.key(0)
# test_ssd.py has the detector, whose outputs are others.
NAMES = models.names("classification")
# MSDNet is for CIFAR, and has neither experts nor widths.
SIZES = {name: models.MODELS[name].IMAGE_SIZE for name in models.names()}


@functools.cache
def traced(name, num_classes=1000, batch=2, **options):
    """Shapes of logits, variables and what every module returned, without computing anything."""
    model = models.create(name, num_classes=num_classes, **options)
    images = jax.ShapeDtypeStruct((batch, SIZES[name], SIZES[name], 3), jnp.float32)
    run = functools.partial(model.init_with_output, capture_intermediates=True, mutable=True)
    logits, variables = jax.eval_shape(run, KEY, images)
    return logits, variables, variables.pop("intermediates", {})


def output(name, *modules, **options):
    """The shape, without the batch, of what a module returned."""
    found = traced(name, **options)[2]
    for module in modules:
        found = found[module]
    return found["__call__"][0].shape[1:]


def kernel(name, *modules, **options):
    found = traced(name, **options)[1]["params"]
    for module in modules:
        found = found[module]
    return found["kernel"].shape


# Options, and what goes in and comes out.


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_of_every_example_and_class(name):
    logits, variables, _ = traced(name)
    assert (logits.shape, logits.dtype) == ((2, 1000), jnp.float32)
    assert set(variables) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_computes_low_stores_float32_and_returns_float32(name):
    logits, variables, outputs = traced(name, num_classes=7, dtype="bfloat16")
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    # The first convolution and the last block or exit.
    inside = {leaf.dtype for leaf in jax.tree.leaves(outputs)}
    assert inside == {jnp.dtype("bfloat16"), jnp.dtype("float32")}
    first = "stem_1" if name == "msdnet" else "layer_1"
    assert outputs[first]["__call__"][0].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", models.names())
def test_default_options_make_the_default_network(name):
    options = models.default_options(name)
    assert options["dtype"] == "float32"
    # Plain values, which a file may hold: there a tuple is a list.
    read = json.loads(json.dumps(options))
    assert models.default_options(name) == options
    model, want = models.create(name, 1000, **read), models.create(name, 1000)
    # Networks of one class and the same options are equal; a dtype does not equal its name.
    assert model.dtype == jnp.dtype(want.dtype).name
    assert model.clone(dtype=want.dtype) == want


# Those of timm's networks: mobilenetv2_100, mnasnet_a1, resnet50, efficientnet_b0, its
# tf_efficientnet_cc_b0_4e, and efficientnet_b1; the trainable ones of Keras' MobileNet.
@pytest.mark.parametrize(
    ("name", "options", "want"),
    [
        ("mobilenet_v1", {}, 4_231_976),
        ("mobilenet_v2", {}, 3_504_872),
        ("mnasnet_a1", {}, 3_887_038),
        ("resnet50", {}, 25_557_032),
        ("efficientnet_b0", {}, 5_288_548),
        ("efficientnet_b0", {"num_experts": 4}, 13_314_116),
        ("efficientnet_b1", {}, 7_794_184),
    ],
)
def test_number_of_parameters(name, options, want):
    params = traced(name, **options)[1]["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == want


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        # timm's mobilenetv2_050, _140, _110d, _120d and mobilenetv1_100h, as far as it prints them.
        ("mobilenet_v2", {"width": 0.5}, 1.97),
        ("mobilenet_v2", {"width": 1.4}, 6.11),
        ("mobilenet_v2", {"width": 1.1, "depth": 1.2, "fix_ends": True}, 4.52),
        ("mobilenet_v2", {"width": 1.2, "depth": 1.4, "fix_ends": True}, 5.83),
        ("mobilenet_v1", {"head_conv": True}, 5.28),
    ],
)
def test_parameters_of_variants(name, options, millions):
    params = traced(name, **options)[1]["params"]
    got = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert round(got / 1e6, 2) == millions


def test_fixed_ends_of_mobilenet_v2():
    options = {"width": 1.4, "depth": 2.0, "fix_ends": True}
    # One block, then twice 2, 3, 4, 3 and 3, then one: layers 2 to 33.
    assert models.create("mobilenet_v2", **options).layout().last == 35
    assert kernel("mobilenet_v2", "layer_1", **options) == (3, 3, 3, 32)
    assert kernel("mobilenet_v2", "layer_34", **options) == (1, 1, 448, 1280)
    assert models.create("mobilenet_v2", depth=2.0).layout().last == 37


def test_head_convolution_of_mobilenet_v1():
    """Layer 15, no narrower than 1024 channels; the classifier is then layer 16."""
    options = {"head_conv": True, "width": 0.5, "num_experts": 2}
    assert kernel("mobilenet_v1", "layer_15", **options) == (2, 1, 1, 512, 1024)
    assert output("mobilenet_v1", "layer_15", **options) == (7, 7, 1024)
    assert kernel("mobilenet_v1", "router_15", **options) == (512, 2)
    assert kernel("mobilenet_v1", "router_16", **options) == (1024, 2)
    assert kernel("mobilenet_v1", "classifier", **options) == (2, 1024, 1000)
    static = options | {"cond_classifier": False}
    assert kernel("mobilenet_v1", "classifier", **static) == (1024, 1000)


@pytest.mark.parametrize(
    ("channels", "width", "want"),
    [
        (32, 1.0, 32),
        (32, 0.25, 8),
        (16, 0.35, 8),  # 5.6: at least 8
        (24, 0.75, 24),  # 18: 16 would be below 90 % of it
        (96, 0.35, 32),  # 33.6
        (320, 1.4, 448),
        (40, 1.1, 48),  # 44: half a step is rounded up
    ],
)
def test_scaled_channels_are_multiples_of_8(channels, width, want):
    assert scale_channels(channels, width) == want


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v2", {"depth": 0.0}, "MobileNetV2: depth is 0.0; pass a positive number"),
        ("resnet50", {"depth": -1.0}, "ResNet50: depth is -1.0; pass a positive number"),
        ("resnet_cifar", {"blocks": 0}, "ResNetCifar: blocks is 0; pass at least 1"),
        ("mnasnet_a1", {"squeeze_excite": 1.5}, r"MnasNetA1: squeeze_excite is 1.5; pass 0 \(none"),
        ("efficientnet_b0", {"drop_path": 1.0}, r"EfficientNetB0: drop_path is 1.0; pass 0 \(none"),
        ("efficientnet_b0", {"drop_path": -0.1}, "EfficientNetB0: drop_path is -0.1"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        traced(name, **options)


# Layers, against the tables.


def test_mobilenet_v2_is_table_2():
    """Sandler et al., table 2: pixels, expansion, channels, blocks of each line."""
    assert output("mobilenet_v2", "layer_1") == (112, 112, 32)
    table = [
        (112, 1, 16, 1), (56, 6, 24, 2), (28, 6, 32, 3), (14, 6, 64, 4),
        (14, 6, 96, 3), (7, 6, 160, 3), (7, 6, 320, 1),
    ]  # fmt: skip
    layer, c = 1, 32
    for pixels, expansion, channels, repeats in table:
        for _ in range(repeats):
            layer += 1
            name = f"layer_{layer}"
            assert output("mobilenet_v2", name) == (pixels, pixels, channels)
            assert kernel("mobilenet_v2", name, "depthwise") == (3, 3, 1, expansion * c)
            assert ("expand" in traced("mobilenet_v2")[1]["params"][name]) == (expansion > 1)
            c = channels
    assert layer == 18
    assert output("mobilenet_v2", "layer_19") == (7, 7, 1280)
    assert kernel("mobilenet_v2", "classifier") == (1280, 1000)
    assert not any("/se/" in path for path in by_path(traced("mobilenet_v2")[1]["params"]))


@pytest.mark.parametrize(("width", "want"), [(0.35, 1280), (1.4, 1792)])
def test_the_head_of_mobilenet_v2_does_not_get_narrow(width, want):
    assert kernel("mobilenet_v2", "layer_19", width=width)[-1] == want


def assert_mbconv_blocks(name, table):
    """Lines of (pixels, kernel, expansion, channels, widths of SE, one for each block)."""
    layer, c = 1, 32
    params = traced(name)[1]["params"]
    for pixels, size, expansion, channels, bottlenecks in table:
        for bottleneck in bottlenecks:
            layer += 1
            block = f"layer_{layer}"
            assert output(name, block) == (pixels, pixels, channels)
            assert kernel(name, block, "depthwise") == (size, size, 1, expansion * c)
            assert kernel(name, block, "project") == (1, 1, expansion * c, channels)
            if bottleneck:
                assert kernel(name, block, "se", "reduce") == (expansion * c, bottleneck)
            assert ("se" in params[block]) == (bottleneck > 0)
            c = channels
    return layer


def test_mnasnet_a1_is_figure_7():
    """SE after the depthwise convolutions of three groups: 1/4 of their blocks' input channels."""
    assert output("mnasnet_a1", "layer_1") == (112, 112, 32)
    table = [
        (112, 3, 1, 16, [0]),
        (56, 3, 6, 24, [0, 0]),
        (28, 5, 3, 40, [6, 10, 10]),
        (14, 3, 6, 80, [0, 0, 0, 0]),
        (14, 3, 6, 112, [20, 28]),
        (7, 5, 6, 160, [28, 40, 40]),
        (7, 3, 6, 320, [0]),
    ]
    assert assert_mbconv_blocks("mnasnet_a1", table) == 17
    assert output("mnasnet_a1", "layer_18") == (7, 7, 1280)


def test_mnasnet_a2_is_a1_with_200_channels_in_the_sixth_group():
    table = [
        (112, 3, 1, 16, [0]),
        (56, 3, 6, 24, [0, 0]),
        (28, 5, 3, 40, [6, 10, 10]),
        (14, 3, 6, 80, [0, 0, 0, 0]),
        (14, 3, 6, 112, [20, 28]),
        (7, 5, 6, 200, [28, 50, 50]),
        (7, 3, 6, 320, [0]),
    ]
    assert assert_mbconv_blocks("mnasnet_a2", table) == 17


# Channels of SE of each block; ceil(1.1 n) blocks where B0 has n.
B0 = ([8], [4, 6], [6, 10], [10, 20, 20], [20, 28, 28], [28, 48, 48, 48], [48])
DEEPER = (
    [8, 4], [4, 6, 6], [6, 10, 10], [10, 20, 20, 20], [20, 28, 28, 28], [28, 48, 48, 48, 48],
    [48, 80],
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bottlenecks", "blocks"),
    [
        ("efficientnet_b0", B0, 16),
        ("efficientnet_b0_depth", DEEPER, 23),
        ("efficientnet_b1", DEEPER, 23),
    ],
)
def test_efficientnet_is_table_1(name, bottlenecks, blocks):
    """SE in every block: 1/4 of its input channels, which are 32 at first."""
    assert output(name, "layer_1") == (112, 112, 32)
    table = [
        (112, 3, 1, 16), (56, 3, 6, 24), (28, 5, 6, 40), (14, 3, 6, 80), (14, 5, 6, 112),
        (7, 5, 6, 192), (7, 3, 6, 320),
    ]  # fmt: skip
    lines = [(*line, widths) for line, widths in zip(table, bottlenecks, strict=True)]
    assert assert_mbconv_blocks(name, lines) == 1 + blocks
    assert output(name, f"layer_{blocks + 2}") == (7, 7, 1280)
    assert kernel(name, "classifier") == (1280, 1000)
    assert EfficientNetB0.ACTIVATION is linen.swish


def test_resnet50_is_table_1_with_the_stride_on_the_3x3():
    assert output("resnet50", "layer_1") == (112, 112, 64)
    assert kernel("resnet50", "layer_1") == (7, 7, 3, 64)
    layer, before = 1, 56  # after the pooling
    for pixels, channels, repeats in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        for block in range(repeats):
            layer += 1
            name = f"layer_{layer}"
            assert output("resnet50", name) == (pixels, pixels, 4 * channels)
            # Version 1.5: the first 1x1 still sees all pixels of the map before.
            first = before if block == 0 else pixels
            assert output("resnet50", name, "reduce") == (first, first, channels)
            assert output("resnet50", name, "spatial") == (pixels, pixels, channels)
            assert kernel("resnet50", name, "spatial") == (3, 3, channels, channels)
            assert ("projection" in traced("resnet50")[1]["params"][name]) == (block == 0)
        before = pixels
    assert layer == 17
    assert kernel("resnet50", "classifier") == (2048, 1000)


def test_resnet_cifar_is_section_4_2():
    """He et al.: 6n + 2 layers on maps of 32, 16 and 8 pixels with 16, 32 and 64 channels."""
    params = traced("resnet_cifar", num_classes=10)[1]["params"]
    layer, before = 1, 16
    for pixels, channels in ((32, 16), (16, 32), (8, 64)):
        for block in range(3):
            layer += 1
            name = f"layer_{layer}"
            assert output("resnet_cifar", name) == (pixels, pixels, channels)
            assert kernel("resnet_cifar", name, "first") == (3, 3, before, channels)
            assert kernel("resnet_cifar", name, "second") == (3, 3, channels, channels)
            assert ("projection" in params[name]) == (block == 0 and channels > 16)
            before = channels
    convolutions = [
        path for path in by_path(params) if path.endswith(("first/kernel", "second/kernel"))
    ]
    assert len(convolutions) + 2 == 20  # the first convolution and the classifier
    assert models.create("resnet_cifar", blocks=9).layout().last == 3 * 9 + 2
    # Their table 6: ResNet-20 has 0.27 M parameters, ResNet-56 0.85 M.
    for blocks, millions in ((3, 0.27), (9, 0.85)):
        params = traced("resnet_cifar", num_classes=10, blocks=blocks)[1]["params"]
        got = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) / 1e6
        assert got == pytest.approx(millions, abs=0.006)
    assert models.create("resnet_cifar", num_experts=2).conditional_layers() == {8, 9, 10}


@pytest.mark.parametrize(
    ("options", "projection", "classifier"),
    [
        ({}, (3, 1, 1, 1024, 2048), (2048, 1000)),
        (
            {"cond_projection": False, "cond_classifier": True},
            (1, 1, 1024, 2048),
            (3, 2048, 1000),
        ),
    ],
)
def test_conv5_of_resnet50_with_and_without_its_projection(options, projection, classifier):
    shape = functools.partial(kernel, "resnet50", num_experts=3, **options)
    assert shape("layer_15", "projection") == projection
    assert shape("classifier") == classifier
    for layer, c in (("layer_15", 1024), ("layer_16", 2048), ("layer_17", 2048)):
        assert shape(layer, "reduce") == (3, 1, 1, c, 512)
        assert shape(layer, "spatial") == (3, 3, 3, 512, 512)
        assert shape(layer, "expand") == (3, 1, 1, 512, 2048)
    assert shape("layer_14", "reduce") == (1, 1, 1024, 256)


# Blocks by their values.


def initialised(block, x):
    return block.init(KEY, x, None)


def test_a_block_of_resnet_begins_as_the_identity():
    x = jnp.abs(jax.random.normal(KEY, (2, 4, 4, 8)))
    block = Bottleneck(2, 1, Layers(train=False))
    variables = initialised(block, x)
    np.testing.assert_array_equal(block.apply(variables, x, None), x)
    assert {k: float(v.max()) for k, v in by_path(variables["params"]).items() if "scale" in k} == {
        "reduce_bn/scale": 1,
        "spatial_bn/scale": 1,
        "expand_bn/scale": 0,
    }


@pytest.mark.parametrize(
    ("stage", "stride", "features", "skips"),
    [
        (MnasNetA1.STAGES[0], 1, 8, False),  # "no skip": in all its other groups there is one
        (MnasNetA1.STAGES[1], 1, 8, True),
        (EfficientNetB0.STAGES[0], 1, 8, True),
        (EfficientNetB0.STAGES[1], 2, 8, False),
        (EfficientNetB0.STAGES[1], 1, 16, False),
    ],
)
def test_a_block_adds_its_input_where_shapes_agree(stage, stride, features, skips):
    # A projection of zeros leaves what passes by it, a batch norm of means 0 and biases 0.
    x = jax.random.normal(KEY, (2, 4, 4, 8))
    block = InvertedResidual(features, stage, stride, Layers(train=False), linen.relu)
    variables = initialised(block, x)
    project = variables["params"]["project"]
    project["kernel"] = jnp.zeros_like(project["kernel"])
    y = block.apply(variables, x, None)
    assert y.shape == (2, 4 // stride, 4 // stride, features)
    np.testing.assert_array_equal(y, x if skips else jnp.zeros_like(y))


# One of each kind of network: the others differ in their tables.
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet50", "msdnet"])
def test_what_depends_on_the_classes_is_named(name):
    options = {"num_experts": 2} if "num_experts" in models.default_options(name) else {}
    three, five = (models.create(name, classes, **options) for classes in (3, 5))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = [
        traverse_util.flatten_dict(
            jax.eval_shape(model.init, jax.random.key(0), images)["params"], sep="/"
        )
        for model in (three, five)
    ]
    different = {path for path, leaf in shapes[0].items() if leaf.shape != shapes[1][path].shape}
    assert {path.rpartition("/")[0] for path in different} == set(three.classifiers())
