"""timm's names and axes, and what does not fit them; without timm."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from condconv_jax import data, models
from condconv_jax.interop import (
    OFFICIAL,
    TIMM,
    from_timm,
    read_timm,
    timm_networks,
    to_timm,
    write_safetensors,
)
from condconv_jax.nn import compress_experts

NARROW = "mobilenetv2_035"
CONDITIONAL = "tf_efficientnet_cc_b0_4e"


@functools.cache
def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@functools.cache
def counted(name, classes=3):
    """A network of ours and variables whose every number is another one."""
    model = timm_networks.make(name, num_classes=classes)
    start = iter(np.cumsum([0, *(leaf.size for leaf in jax.tree.leaves(shapes(model)))]))

    def count(leaf):
        # Float64: float32 can count no further than 2**24.
        return (next(start) + np.arange(leaf.size, dtype=np.float64)).reshape(leaf.shape)

    return model, jax.tree.map(count, shapes(model))


def doubles(model):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float64), shapes(model))


@pytest.fixture
def state():
    """A fresh state dict of `NARROW`."""
    return to_timm(NARROW, *counted(NARROW))


# Names and axes.


@pytest.mark.parametrize("name", [NARROW, CONDITIONAL, "mobilenetv1_100h", "resnet50"])
def test_there_and_back(name):
    model, variables = counted(name)
    back = from_timm(to_timm(name, model, variables), model, doubles(model))
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


# Ours, timm's key, timm's shape; all of them for one block of each kind, written down from timm
# 1.0.31's state dicts. The experts' rows are a kernel (f, c/g, kh, kw) each.
EXPANDING = {
    "layer_18_bn/scale": ("bn2.weight", (1280,)),
    "classifier/kernel": ("classifier.weight", (3, 1280)),
    "layer_1/kernel": ("conv_stem.weight", (32, 3, 3, 3)),
    "layer_1_bn/bias": ("bn1.bias", (32,)),
    "layer_2/depthwise/kernel": ("blocks.0.0.conv_dw.weight", (32, 1, 3, 3)),
    "layer_2/depthwise_bn/mean": ("blocks.0.0.bn1.running_mean", (32,)),
    "layer_2/se/reduce/kernel": ("blocks.0.0.se.conv_reduce.weight", (8, 32, 1, 1)),
    "layer_2/se/expand/bias": ("blocks.0.0.se.conv_expand.bias", (32,)),
    "layer_2/project/kernel": ("blocks.0.0.conv_pw.weight", (16, 32, 1, 1)),
    "layer_2/project_bn/var": ("blocks.0.0.bn2.running_var", (16,)),
    "layer_4/expand/kernel": ("blocks.1.1.conv_pw.weight", (144, 24, 1, 1)),
    "layer_4/expand_bn/scale": ("blocks.1.1.bn1.weight", (144,)),
    "layer_4/depthwise_bn/bias": ("blocks.1.1.bn2.bias", (144,)),
    "layer_4/project/kernel": ("blocks.1.1.conv_pwl.weight", (24, 144, 1, 1)),
    "layer_4/project_bn/mean": ("blocks.1.1.bn3.running_mean", (24,)),
    "router_10/kernel": ("blocks.4.0.routing_fn.weight", (4, 80)),
    "router_10/bias": ("blocks.4.0.routing_fn.bias", (4,)),
    "layer_10/expand/kernel": ("blocks.4.0.conv_pw.weight", (4, 480 * 80)),
    "layer_10/depthwise/kernel": ("blocks.4.0.conv_dw.weight", (4, 480 * 25)),
    "layer_10/project/kernel": ("blocks.4.0.conv_pwl.weight", (4, 112 * 480)),
    "layer_18/kernel": ("conv_head.weight", (1280, 320, 1, 1)),
    "classifier/bias": ("classifier.bias", (3,)),
}
SEPARABLE = {
    "layer_2/depthwise/kernel": ("blocks.0.0.conv_dw.weight", (32, 1, 3, 3)),
    "layer_2/pointwise/kernel": ("blocks.0.0.conv_pw.weight", (64, 32, 1, 1)),
    "layer_4/pointwise_bn/var": ("blocks.1.1.bn2.running_var", (128,)),
    "layer_14/depthwise_bn/scale": ("blocks.4.1.bn1.weight", (1024,)),
    "layer_15/kernel": ("conv_head.weight", (1024, 1024, 1, 1)),
    "layer_15_bn/scale": ("bn2.weight", (1024,)),
}
BOTTLENECK = {
    "layer_1/kernel": ("conv1.weight", (64, 3, 7, 7)),
    "layer_1_bn/scale": ("bn1.weight", (64,)),
    "layer_2/reduce/kernel": ("layer1.0.conv1.weight", (64, 64, 1, 1)),
    "layer_2/projection/kernel": ("layer1.0.downsample.0.weight", (256, 64, 1, 1)),
    "layer_2/projection_bn/mean": ("layer1.0.downsample.1.running_mean", (256,)),
    "layer_17/spatial/kernel": ("layer4.2.conv2.weight", (512, 512, 3, 3)),
    "layer_17/expand_bn/bias": ("layer4.2.bn3.bias", (2048,)),
    "classifier/kernel": ("fc.weight", (3, 2048)),
}


@pytest.mark.parametrize(
    ("name", "rows"),
    [(CONDITIONAL, EXPANDING), ("mobilenetv1_100h", SEPARABLE), ("resnet50", BOTTLENECK)],
)
def test_names_and_shapes(name, rows):
    model, variables = counted(name)
    flat = traverse_util.flatten_dict(variables, sep="/")
    state = to_timm(name, model, variables)
    assert len(flat) == sum(not key.endswith("num_batches_tracked") for key in state)
    for ours, (theirs, shape) in rows.items():
        averages = ours.endswith(("/mean", "/var"))
        want = flat[f"{'batch_stats' if averages else 'params'}/{ours}"]
        assert state[theirs].shape == shape, theirs
        # Every number is another one, so these are the same ones, in whatever order.
        assert set(state[theirs].flat) == set(want.flat), theirs


def test_every_batch_norm_has_a_counter(state):
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert {key.rpartition(".")[0] for key in counters} == {
        key.rpartition(".")[0] for key in state if key.endswith("running_var")
    }
    for key in counters:
        assert (state[key].shape, state[key].dtype) == ((), np.int64)


def written(layer, kernel):
    """timm's array of a kernel of ours."""
    model, variables = counted(CONDITIONAL)
    flat = traverse_util.flatten_dict(variables, sep="/")
    path = f"params/{layer}/kernel"
    assert flat[path].shape == kernel.shape
    state = to_timm(
        CONDITIONAL, model, traverse_util.unflatten_dict(flat | {path: kernel}, sep="/")
    )
    key = {
        "layer_1": "conv_stem.weight",
        "layer_2/depthwise": "blocks.0.0.conv_dw.weight",
        "layer_2/se/reduce": "blocks.0.0.se.conv_reduce.weight",
        "layer_10/expand": "blocks.4.0.conv_pw.weight",
        "layer_10/depthwise": "blocks.4.0.conv_dw.weight",
        "router_10": "blocks.4.0.routing_fn.weight",
        "classifier": "classifier.weight",
    }[layer]
    return state[key]


@pytest.mark.parametrize(
    ("layer", "shape", "ours", "theirs"),
    [
        # (kh, kw, c, f) and (f, c, kh, kw).
        ("layer_1", (3, 3, 3, 32), (0, 2, 1, 30), (30, 1, 0, 2)),
        # (kh, kw, 1, c) and (c, 1, kh, kw).
        ("layer_2/depthwise", (3, 3, 1, 32), (2, 0, 0, 7), (7, 0, 2, 0)),
        # (c, f) and a 1x1 convolution's (f, c, 1, 1).
        ("layer_2/se/reduce", (32, 8), (30, 5), (5, 30, 0, 0)),
        # (e, 1, 1, c, f) and (e, f * c): 80 input channels.
        ("layer_10/expand", (4, 1, 1, 80, 480), (3, 0, 0, 79, 400), (3, 400 * 80 + 79)),
        # (e, kh, kw, 1, c) and (e, c * kh * kw): row 3 and column 1 of 5x5.
        ("layer_10/depthwise", (4, 5, 5, 1, 480), (2, 3, 1, 0, 99), (2, 99 * 25 + 3 * 5 + 1)),
        ("router_10", (80, 4), (78, 3), (3, 78)),
        ("classifier", (1280, 3), (1001, 2), (2, 1001)),
    ],
)
def test_where_one_number_goes(layer, shape, ours, theirs):
    kernel = np.zeros(shape)
    kernel[ours] = 1
    array = written(layer, kernel)
    assert np.argwhere(array).tolist() == [list(theirs)]


def test_a_kernel_of_experts_by_hand():
    """c = 2, f = 3 of 2x2 pixels, two experts: as PyTorch's view(e, f, c, kh, kw) reads a row."""
    from condconv_jax.interop.timm import _from_layout, _to_layout

    rows = np.arange(48.0).reshape(2, 24)
    ours = _from_layout("layer/kernel", rows, (2, 2, 2, 2, 3))
    # Expert 1 (24 on), output 2 (8 each), input 1 (4 each), row 1 (2 each), column 0.
    assert ours[1, 1, 0, 1, 2] == 24 + 2 * 8 + 4 + 2
    np.testing.assert_array_equal(_to_layout("layer/kernel", ours), rows)
    np.testing.assert_array_equal(
        ours[0, 0, 0], [[0, 8, 16], [4, 12, 20]]
    )  # of the upper left pixel, inputs by outputs


# What does not fit.


def test_everything_that_does_not_fit_is_said_at_once(state):
    model, _ = counted(NARROW)
    del state["conv_stem.weight"]
    del state["blocks.1.0.bn2.running_var"]
    state["blocks.1.0.conv_pwl.weight"] = np.zeros((8, 48, 3, 3))
    state["classifier.bias"] = np.zeros(3, np.int32)
    state["blocks.9.0.conv_pw.weight"] = np.zeros((4, 8, 1, 1))
    state["head.fc.bias"] = np.zeros(2)
    with pytest.raises(ValueError, match=r"^from_timm: the file does not fit the net") as caught:
        from_timm(state, model, doubles(model))
    _, *problems, last = str(caught.value).splitlines()
    assert sorted(problems) == [
        "  blocks.1.0.bn2.running_var: missing, wanted (48,) for "
        "batch_stats/layer_3/depthwise_bn/var",
        "  blocks.1.0.conv_pwl.weight: float64 (8, 48, 3, 3), wanted (8, 48, 1, 1) for "
        "params/layer_3/project/kernel",
        "  blocks.9.0.conv_pw.weight: extra, (4, 8, 1, 1)",
        "  classifier.bias: int32 (3,), wanted (3,) for params/classifier/bias",
        "  conv_stem.weight: missing, wanted (16, 3, 3, 3) for params/layer_1/kernel",
        "  head.fc.bias: extra, (2,)",
    ]
    assert last == "name the network that it is of"


def test_experts_that_do_not_fit():
    model, variables = counted(CONDITIONAL)
    state = to_timm(CONDITIONAL, model, variables)
    # As many numbers in another order of axes are no fit either.
    state["blocks.4.0.conv_pw.weight"] = state["blocks.4.0.conv_pw.weight"].reshape(4, 480, 80)
    state["blocks.4.0.routing_fn.weight"] = np.zeros((8, 80))
    with pytest.raises(ValueError, match=r"float64 \(4, 480, 80\), wanted \(4, 38400\)") as caught:
        from_timm(state, model, doubles(model))
    assert "routing_fn.weight: float64 (8, 80), wanted (4, 80) for params/router_10/kernel" in str(
        caught.value
    )


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_other_numbers_than_floating_ones_are_refused(dtype, state):
    model, _ = counted(NARROW)
    state["bn1.weight"] = np.ones(16, dtype)
    with pytest.raises(ValueError, match=rf"bn1.weight: {dtype} \(16,\), wanted \(16,\)"):
        from_timm(state, model, doubles(model))


def test_counters_are_of_no_account(state):
    model, variables = counted(NARROW)
    keys = [key for key in state if key.endswith("num_batches_tracked")]
    state[keys[0]] = np.int64(123)
    for key in keys[1:]:
        del state[key]
    jax.tree.map(np.testing.assert_array_equal, from_timm(state, model, doubles(model)), variables)


def test_values_get_our_dtypes(state):
    model, _ = counted(NARROW)
    low = {key: (array % 1000).astype("float16") for key, array in state.items()}
    converted = from_timm(low, model, shapes(model))
    assert {leaf.dtype for leaf in jax.tree.leaves(converted)} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        converted["params"]["classifier"]["bias"], low["classifier.bias"].astype("float32")
    )


# Which network.


def test_tags_say_which_weights_not_which_network():
    tagged = timm_networks.find("tf_efficientnet_cc_b0_8e.in1k")
    assert tagged is timm_networks.find("tf_efficientnet_cc_b0_8e")
    assert timm_networks.make("resnet50.a1_in1k", 5) == timm_networks.make("resnet50", 5)
    model, variables = counted(NARROW)
    assert to_timm(f"{NARROW}.lamb_in1k", model, variables).keys() == (
        to_timm(NARROW, model, variables).keys()
    )


@pytest.mark.parametrize("function", [timm_networks.find, timm_networks.make])
def test_unknown_names(function):
    with pytest.raises(
        ValueError, match=r"^timm: unknown network 'resnet51'; .*'semnasnet_140'.*mean 'resnet50'\?"
    ):
        function("resnet51")


def test_unknown_names_where_files_are_read_and_written(tmp_path):
    with pytest.raises(ValueError, match=r"^timm: unknown network 'resnet51'; .*'resnet50'"):
        read_timm(tmp_path / "nothing.safetensors", "resnet51")
    with pytest.raises(ValueError, match=r"^timm: unknown network 'resnet51'; .*'resnet50'"):
        to_timm("resnet51", *counted(NARROW))


def test_the_classifier_counts_the_classes(state, tmp_path):
    path = tmp_path / "network.safetensors"
    write_safetensors(path, {key: array.astype("float32") for key, array in state.items()})
    assert read_timm(path, NARROW)[0].num_classes == 3
    for bias in (None, np.zeros(())):
        del state["classifier.bias"]
        if bias is not None:
            state["classifier.bias"] = bias
        write_safetensors(path, state)
        with pytest.raises(ValueError, match=r"no vector classifier.bias or fc.bias, .*; pass the"):
            read_timm(path, NARROW)
        state["classifier.bias"] = bias


def test_what_is_not_finite_is_named(state):
    model, _ = counted(NARROW)
    state["bn1.running_var"] = state["bn1.running_var"] * np.nan
    state["conv_stem.weight"][0, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="layer_1_bn/var: has values that are not") as caught:
        from_timm(state, model, doubles(model))
    assert "layer_1/kernel: has values that are not finite" in str(caught.value)


def test_every_network_is_the_same_as_itself():
    for name in timm_networks.names():
        timm_networks.check_same(name, timm_networks.make(name, 7))


def test_the_statistics_of_every_network_are_known():
    for network in (*TIMM.values(), *OFFICIAL.values()):
        assert network.statistics in data.STATISTICS


def test_what_the_images_of_published_weights_are():
    """As timm 1.0.31's and the official code's first weights of each name have it."""
    inception = {name for name, network in TIMM.items() if network.statistics == "inception"}
    assert inception == {
        *(f"tf_efficientnet_cc_{name}" for name in ("b0_4e", "b0_8e", "b1_8e")),
        *("efficientnet_b1", "mobilenetv1_100", "mobilenetv1_100h", "mobilenetv1_125"),
    }
    # All others' are ImageNet's own.
    known = {network.statistics for name, network in TIMM.items() if name not in inception}
    assert known == {"imagenet"}
    assert {name: network.statistics for name, network in OFFICIAL.items()} == {
        name: "efficientnet_condconv" if "condconv" in name else "imagenet" for name in OFFICIAL
    }
    for name, network in (*TIMM.items(), *OFFICIAL.items()):
        # CondConv-EfficientNet-B0-8e-depth is trained at B0's size.
        assert network.image_size == (240 if re.search("[-_]b1", name) else 224), name


def test_every_network_is_another_than_all_others():
    for name in timm_networks.names():
        model = timm_networks.make(name)
        for other in timm_networks.names():
            if other != name:
                with pytest.raises(ValueError, match="to_timm: "):
                    timm_networks.check_same(other, model)


def differences(name, **options):
    """What is said of timm's network with other options."""
    wanted = timm_networks.find(name)
    model = models.create(wanted.model, 3, **{**wanted.options, **options})
    with pytest.raises(ValueError, match=f"^to_timm: this is not timm's {name}: ") as caught:
        to_timm(name, model, {})
    return str(caught.value).removeprefix(f"to_timm: this is not timm's {name}: ").split("; ")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (NARROW, {"padding": "SAME"}, "padding is 'SAME', there 'SYMMETRIC'"),
        (NARROW, {"width": 0.5}, "width is 0.5, there 0.35"),
        (NARROW, {"early_strides": (1, 2, 2)}, "early_strides is (1, 2, 2), there (2, 2, 2)"),
        (NARROW, {"batch_norm_epsilon": 1e-3}, "batch_norm_epsilon is 0.001, there 1e-05"),
        (NARROW, {"squeeze_excite": 0.25}, "squeeze_excite is 0.25, there 0.0"),
        (CONDITIONAL, {"num_experts": 8}, "num_experts is 8, there 4"),
        (CONDITIONAL, {"depth": 1.1}, "depth is 1.1, there 1.0"),
    ],
)
def test_one_option_that_differs(name, options, said):
    assert said in differences(name, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation": "softmax"}, "activation='softmax'"),
        ({"top_k": 2}, "top_k=2"),
        ({"temperature": 30.0}, "temperature=30.0"),
        ({"hidden": "small"}, "hidden='small'"),
        ({"hierarchical": True}, "hierarchical=True"),
        ({"sharing": "partial"}, "sharing='partial'"),
    ],
)
def test_another_routing(options, said):
    (only,) = differences(CONDITIONAL, routing=options)
    assert said in only.partition(", there ")[0]
    assert said not in only.partition(", there ")[2]


def test_another_placement():
    (only,) = differences(CONDITIONAL, cond_groups=(6, 7))
    assert only == (
        "layers [13, 14, 15, 16, 17] are CondConv, there [10, 11, 12, 13, 14, 15, 16, 17]"
    )
    (only,) = differences(CONDITIONAL, cond_classifier=True, begin_layer=10)
    assert only.startswith("layers [10, 11, 12, 13, 14, 15, 16, 17, 19] are CondConv")
    said = differences("tf_efficientnet_b0", num_experts=8)
    assert said == ["layers [10, 11, 12, 13, 14, 15, 16, 17] are CondConv, there none"]
    said = differences(CONDITIONAL, num_experts=0)
    assert "num_experts is 0, there 4" in said
    assert said[-1] == "layers none are CondConv, there [10, 11, 12, 13, 14, 15, 16, 17]"


def test_the_same_placement_in_other_words():
    model, variables = counted(CONDITIONAL)
    to_timm(CONDITIONAL, model.clone(cond_groups=(5, 6, 7)), variables)
    to_timm(CONDITIONAL, model.clone(begin_layer=10), variables)


def test_all_options_that_differ_at_once():
    said = differences(NARROW, padding="SAME", width=0.75, num_experts=4, begin_layer=18)
    assert said == [
        "width is 0.75, there 0.35",
        "padding is 'SAME', there 'SYMMETRIC'",
        "layers [18, 19, 20] are CondConv, there none",
    ]


def test_relatives_of_condconv_are_refused():
    assert "cond_layer is 'odconv', there 'condconv'" in differences(
        CONDITIONAL, cond_layer="odconv"
    )


def test_int8_experts_are_refused():
    model, variables = counted(CONDITIONAL)
    variables = {**variables, "params": compress_experts(variables["params"], "int8")}
    with pytest.raises(ValueError, match="to_timm: the experts are int8"):
        to_timm(CONDITIONAL, model, variables)


def test_another_architecture():
    with pytest.raises(
        ValueError, match=r"mobilenetv2_035 is MobileNetV2, this is ResNet50; pass one of resnet50$"
    ):
        to_timm(NARROW, models.create("resnet50"), {})
    with pytest.raises(ValueError, match=r"resnet50 is ResNet50, this is MSDNet; timm has none"):
        to_timm("resnet50", models.create("msdnet"), {})


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.2},
        {"dtype": "bfloat16"},
        {"method": "reference"},
        {"batch_norm_momentum": 0.9},
        {"drop_path": 0.2},
        {"routing": {"noise": "drop", "drop_rate": 0.3}},
        {"routing": {"initial_temperature": 30.0, "anneal_steps": 10}},
    ],
    ids=str,
)
def test_options_of_training_do_not_matter(options):
    wanted = timm_networks.find(CONDITIONAL)
    model = models.create(wanted.model, 3, **{**wanted.options, **options})
    timm_networks.check_same(CONDITIONAL, model)


@pytest.mark.parametrize(
    "options", [{"num_experts": 1}, {"routing": {"top_k": 2}}, {"only_layer": 5}], ids=str
)
def test_a_static_network_has_no_options_of_experts(options):
    model = models.create("mobilenet_v2", 3, **{**timm_networks.find(NARROW).options, **options})
    timm_networks.check_same(NARROW, model)


def test_the_message_is_of_one_line():
    with pytest.raises(ValueError, match="to_timm") as caught:
        to_timm(NARROW, models.create("mobilenet_v2", 3), {})
    assert not re.search("\n", str(caught.value))


def test_annealing_and_the_depth_network_are_of_no_account():
    # Its state holds a step, which timm's network has not.
    routing = {"initial_temperature": 30.0, "anneal_steps": 10}
    model = models.create("efficientnet_b0", 3, num_experts=4, routing=routing)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes(model))
    assert "schedule" in variables
    assert (
        to_timm(CONDITIONAL, model, variables).keys()
        == to_timm(CONDITIONAL, *counted(CONDITIONAL)).keys()
    )
    # CondConv-EfficientNet-B0-8e-depth has B1's layers, and timm's port of it B1's name.
    depth = models.create("efficientnet_b0_depth", num_experts=8)
    timm_networks.check_same("tf_efficientnet_cc_b1_8e", depth)
