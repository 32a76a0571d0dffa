import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import write_tensorflow_checkpoint
from flax import traverse_util
from write_tensorflow_checkpoint import EMA, NETWORKS, checkpoint_values, value, weights

from condconv_jax import models
from condconv_jax.interop.tensor_bundle import read_tensors
from condconv_jax.interop.tensorflow import from_tensorflow

DATA = Path(__file__).with_name("data")
SCOPE = "efficientnet-condconv-small/"

# Every variable of the fixture's network (four blocks: 4 to 4 channels without expansion, 4 to 6
# and 6 to 4 by twice the channels, and 4 to 4; the last two of 2 experts), our shape, and its
# name in the official network.
MAPPING = {
    "layer_1/kernel": ((3, 3, 3, 4), "stem/conv2d/kernel"),
    "layer_2/depthwise/kernel": ((3, 3, 1, 4), "blocks_0/depthwise_conv2d/depthwise_kernel"),
    "layer_2/se/reduce/kernel": ((4, 1), "blocks_0/se/conv2d/kernel"),
    "layer_2/se/reduce/bias": ((1,), "blocks_0/se/conv2d/bias"),
    "layer_2/se/expand/kernel": ((1, 4), "blocks_0/se/conv2d_1/kernel"),
    "layer_2/se/expand/bias": ((4,), "blocks_0/se/conv2d_1/bias"),
    "layer_2/project/kernel": ((1, 1, 4, 4), "blocks_0/conv2d/kernel"),
    "layer_3/expand/kernel": ((1, 1, 4, 8), "blocks_1/conv2d/kernel"),
    "layer_3/depthwise/kernel": ((3, 3, 1, 8), "blocks_1/depthwise_conv2d/depthwise_kernel"),
    "layer_3/se/reduce/kernel": ((8, 1), "blocks_1/se/conv2d/kernel"),
    "layer_3/se/reduce/bias": ((1,), "blocks_1/se/conv2d/bias"),
    "layer_3/se/expand/kernel": ((1, 8), "blocks_1/se/conv2d_1/kernel"),
    "layer_3/se/expand/bias": ((8,), "blocks_1/se/conv2d_1/bias"),
    "layer_3/project/kernel": ((1, 1, 8, 6), "blocks_1/conv2d_1/kernel"),
    "router_4/kernel": ((6, 2), "blocks_2/dense/kernel"),
    "router_4/bias": ((2,), "blocks_2/dense/bias"),
    "layer_4/expand/kernel": ((2, 1, 1, 6, 12), "model/blocks_2/cond_conv2d_1/condconv_kernel"),
    "layer_4/depthwise/kernel": (
        (2, 5, 5, 1, 12),
        "model/blocks_2/depthwise_cond_conv2d/depthwise_condconv_kernel",
    ),
    "layer_4/se/reduce/kernel": ((12, 1), "blocks_2/se/conv2d/kernel"),
    "layer_4/se/reduce/bias": ((1,), "blocks_2/se/conv2d/bias"),
    "layer_4/se/expand/kernel": ((1, 12), "blocks_2/se/conv2d_1/kernel"),
    "layer_4/se/expand/bias": ((12,), "blocks_2/se/conv2d_1/bias"),
    "layer_4/project/kernel": ((2, 1, 1, 12, 4), "model/blocks_2/cond_conv2d_2/condconv_kernel"),
    "router_5/kernel": ((4, 2), "blocks_3/dense/kernel"),
    "router_5/bias": ((2,), "blocks_3/dense/bias"),
    "layer_5/expand/kernel": ((2, 1, 1, 4, 8), "model/blocks_3/cond_conv2d_4/condconv_kernel"),
    "layer_5/depthwise/kernel": (
        (2, 5, 5, 1, 8),
        "model/blocks_3/depthwise_cond_conv2d_1/depthwise_condconv_kernel",
    ),
    "layer_5/se/reduce/kernel": ((8, 1), "blocks_3/se/conv2d/kernel"),
    "layer_5/se/reduce/bias": ((1,), "blocks_3/se/conv2d/bias"),
    "layer_5/se/expand/kernel": ((1, 8), "blocks_3/se/conv2d_1/kernel"),
    "layer_5/se/expand/bias": ((8,), "blocks_3/se/conv2d_1/bias"),
    "layer_5/project/kernel": ((2, 1, 1, 8, 4), "model/blocks_3/cond_conv2d_5/condconv_kernel"),
    "layer_6/kernel": ((1, 1, 4, 8), "head/conv2d/kernel"),
    "classifier/kernel": ((8, 3), "head/dense/kernel"),
    "classifier/bias": ((3,), "head/dense/bias"),
}
NORMS = {
    "layer_1_bn": (4, "stem/tpu_batch_normalization"),
    "layer_2/depthwise_bn": (4, "blocks_0/tpu_batch_normalization"),
    "layer_2/project_bn": (4, "blocks_0/tpu_batch_normalization_1"),
    "layer_3/expand_bn": (8, "blocks_1/tpu_batch_normalization"),
    "layer_3/depthwise_bn": (8, "blocks_1/tpu_batch_normalization_1"),
    "layer_3/project_bn": (6, "blocks_1/tpu_batch_normalization_2"),
    "layer_4/expand_bn": (12, "blocks_2/tpu_batch_normalization"),
    "layer_4/depthwise_bn": (12, "blocks_2/tpu_batch_normalization_1"),
    "layer_4/project_bn": (4, "blocks_2/tpu_batch_normalization_2"),
    "layer_5/expand_bn": (8, "blocks_3/tpu_batch_normalization"),
    "layer_5/depthwise_bn": (8, "blocks_3/tpu_batch_normalization_1"),
    "layer_5/project_bn": (4, "blocks_3/tpu_batch_normalization_2"),
    "layer_6_bn": (8, "head/tpu_batch_normalization"),
}
LEAVES = {
    "params": {"scale": "gamma", "bias": "beta"},
    "batch_stats": {"mean": "moving_mean", "var": "moving_variance"},
}


def small_names():
    """Our keys to shape and official name."""
    return {f"params/{key}": value for key, value in MAPPING.items()} | {
        f"{collection}/{key}/{ours}": ((size,), f"{name}/{official}")
        for key, (size, name) in NORMS.items()
        for collection, leaves in LEAVES.items()
        for ours, official in leaves.items()
    }


def small_network():
    shapes = {key: jax.ShapeDtypeStruct(s, np.float32) for key, (s, _) in small_names().items()}
    return traverse_util.unflatten_dict(shapes, sep="/")


def network(name, num_experts, **options):
    model = models.create(name, num_experts=num_experts, **options)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.fixture
def tensors():
    return checkpoint_values(NETWORKS["small"])


@pytest.mark.parametrize("ema", [True, False])
def test_every_variable_of_a_written_checkpoint(ema, tensors):
    converted = from_tensorflow(read_tensors(DATA / "small"), small_network(), ema=ema)
    flat = traverse_util.flatten_dict(converted, sep="/")
    names = small_names()
    assert flat.keys() == names.keys()
    for key, (shape, name) in names.items():
        want = tensors[SCOPE + name + (EMA if ema else "")]
        assert flat[key].shape == shape
        assert flat[key].dtype == np.float32
        # In memory the axes have the official order, and axes of size 1 do not count.
        np.testing.assert_array_equal(flat[key].ravel(), want.ravel(), err_msg=key)
    assert {SCOPE + name for _, name in names.values()} == weights(NETWORKS["small"]).keys()


def test_order_of_the_axes(tensors):
    """The official kernel of expert e is row e, flattened from (kh, kw, c, f)."""
    params = from_tensorflow(tensors, small_network(), ema=False)["params"]
    model = f"{SCOPE}model/blocks_2/"
    expand = tensors[model + "cond_conv2d_1/condconv_kernel"]
    assert params["layer_4"]["expand"]["kernel"][1, 0, 0, 4, 7] == expand[1, 4 * 12 + 7]
    depthwise = tensors[model + "depthwise_cond_conv2d/depthwise_condconv_kernel"]
    place = (1 * 5 + 3) * 12 + 9
    assert params["layer_4"]["depthwise"]["kernel"][1, 1, 3, 0, 9] == depthwise[1, place]
    static = tensors[f"{SCOPE}blocks_1/depthwise_conv2d/depthwise_kernel"]
    assert params["layer_3"]["depthwise"]["kernel"][0, 2, 0, 6] == static[0, 2, 6, 0]


@pytest.mark.parametrize(
    ("name", "model", "num_experts", "parameters"),
    [
        # Millions as in condconv/README.md of the official code.
        ("efficientnet-b0", "efficientnet_b0", 0, 5.3),
        ("efficientnet-condconv-b0-4e", "efficientnet_b0", 4, 13.3),
        ("efficientnet-condconv-b0-8e", "efficientnet_b0", 8, 24.0),
        ("efficientnet-condconv-b0-8e-depth", "efficientnet_b0_depth", 8, 39.7),
    ],
)
def test_official_networks_are_ours(name, model, num_experts, parameters):
    shapes = {name: shape for name, (shape, _) in weights(NETWORKS[name]).items()}
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    _, variables = network(model, num_experts)
    converted = from_tensorflow(tensors, variables, ema=False)
    assert jax.tree.map(np.shape, converted) == jax.tree.map(lambda x: x.shape, variables)
    count = sum(leaf.size for leaf in jax.tree.leaves(converted["params"]))
    assert round(count / 1e6, 1) == parameters


def test_other_scopes_and_numbers(tensors):
    """Scopes differ between releases; Keras numbers its layers by what else was built."""
    want = from_tensorflow(tensors, small_network())
    others = {
        SCOPE: "tower/b0/",
        "/model/": "/",
        "/cond_conv2d_5/": "/cond_conv2d_11/",
        "/cond_conv2d_4/": "/cond_conv2d_9/",
        "/depthwise_cond_conv2d/": "/depthwise_cond_conv2d_3/",
    }
    renamed = {}
    for name, array in tensors.items():
        for old, new in others.items():
            name = name.replace(old, new)
        renamed[name] = array
    assert not set(renamed) & set(tensors) - {"global_step"}
    jax.tree.map(np.testing.assert_array_equal, from_tensorflow(renamed, small_network()), want)


@pytest.mark.parametrize("slot", ["Momentum", "LARSOptimizer", "RMSProp_1"])
def test_optimisers_are_left_out(tensors, slot):
    tensors = {name: array for name, array in tensors.items() if "RMSProp" not in name}
    tensors[f"{SCOPE}head/dense/kernel/{slot}"] = np.zeros((8, 3), np.float32)
    from_tensorflow(tensors, small_network())


def test_what_does_not_fit_is_said_at_once(tensors):
    del tensors[f"{SCOPE}blocks_1/conv2d_1/kernel"]
    del tensors[f"{SCOPE}model/blocks_3/cond_conv2d_5/condconv_kernel"]
    del tensors[f"{SCOPE}blocks_2/se/conv2d/bias"]
    tensors[f"{SCOPE}blocks_4/conv2d/kernel"] = np.zeros((1, 1, 4, 4), np.float32)
    tensors[f"{SCOPE}auxiliary/bias"] = np.zeros(3, np.float32)
    tensors[f"teacher/{SCOPE}stem/conv2d/kernel"] = np.zeros((3, 3, 3, 4), np.float32)
    tensors[f"{SCOPE}head/dense/kernel"] = np.zeros((8, 4), np.float32)
    tensors[f"{SCOPE}head/dense/bias"] = np.zeros(3, np.int32)
    wanted = small_network()
    wanted["params"]["router_4"]["hidden"] = {"bias": jax.ShapeDtypeStruct((6,), np.float32)}
    with pytest.raises(ValueError, match=r"^from_tensorflow: the checkpoint does not") as caught:
        from_tensorflow(tensors, wanted, ema=False)
    _, *problems, last = str(caught.value).splitlines()
    assert sorted(problems) == sorted(
        [
            f"  teacher/{SCOPE}stem/conv2d/kernel: extra, (3, 3, 3, 4)",
            f"  {SCOPE}auxiliary/bias: extra, (3,)",
            f"  {SCOPE}blocks_4/conv2d/kernel: extra, (1, 1, 4, 4)",
            f"  params/classifier/bias: {SCOPE}head/dense/bias is int32 (3,), wanted (3,)",
            f"  params/classifier/kernel: {SCOPE}head/dense/kernel is (8, 4), wanted (8, 3)",
            "  params/layer_3/project/kernel: missing, "
            "wanted blocks_1/conv2d_1/kernel (1, 1, 8, 6)",
            "  params/layer_4/se/reduce/bias: missing, wanted blocks_2/se/conv2d/bias (1,)",
            "  params/layer_5/project/kernel: missing, wanted blocks_3/conv2d_1/kernel (2, 32)",
            "  params/router_4/hidden/bias: has no counterpart in the official network",
        ]
    )
    assert last == "make the network with the checkpoint's depth, experts and classes"


def test_a_checkpoint_of_more_experts():
    shapes = weights(NETWORKS["efficientnet-condconv-b0-8e"])
    tensors = {name: np.broadcast_to(np.float32(0), s) for name, (s, _) in shapes.items()}
    with pytest.raises(
        ValueError, match=r"cond_conv2d_4/condconv_kernel is \(8, 75264\), wanted \(4"
    ):
        from_tensorflow(tensors, network("efficientnet_b0", 4)[1], ema=False)
    with pytest.raises(ValueError, match=r"blocks_15/dense/kernel: extra, \(192, 8\)"):
        from_tensorflow(tensors, network("efficientnet_b0", 0)[1], ema=False)


def test_another_network():
    tensors = checkpoint_values(NETWORKS["small"])
    variables = network("mobilenet_v1", 0, width=0.25)[1]
    with pytest.raises(ValueError, match="layer_9/pointwise/kernel: has no counterpart"):
        from_tensorflow(tensors, variables)


def test_without_moving_averages(tensors):
    raw = {name: array for name, array in tensors.items() if not name.endswith(EMA)}
    with pytest.raises(ValueError, match=r"no moving averages; pass ema=False \(--raw\)"):
        from_tensorflow(raw, small_network())
    from_tensorflow(raw, small_network(), ema=False)
    shadows = {name: array for name, array in tensors.items() if name.endswith(EMA)}
    with pytest.raises(ValueError, match=r"nothing but moving averages; pass ema=True"):
        from_tensorflow(shadows, small_network(), ema=False)
    from_tensorflow(shadows, small_network())


def test_without_some_moving_averages(tensors):
    mean = f"{SCOPE}stem/tpu_batch_normalization/moving_mean"
    del tensors[mean + EMA]
    stats = from_tensorflow(tensors, small_network())["batch_stats"]
    np.testing.assert_array_equal(stats["layer_1_bn"]["mean"], tensors[mean])
    del tensors[f"{SCOPE}stem/conv2d/kernel{EMA}"]
    with pytest.raises(ValueError, match=r"stem/conv2d/kernel: missing, there is no .*--raw"):
        from_tensorflow(tensors, small_network())


# The first four logits from the official code (tensorflow/tpu at 7dc921f,
# efficientnet_condconv_builder.build_model with training=False; TensorFlow 2.21 and Keras 2) with
# the weights of efficientnet-condconv-b0-8e that write_tensorflow_checkpoint.py derives.
OFFICIAL_LOGITS = [
    [0.07642635, 0.002433151, 0.6964722, -0.9138806],
    [-0.7033651, 0.94781953, 0.08095623, -1.9697686],
    [-0.8995765, 0.78470176, 0.19124523, -1.6689895],
    [-0.24874008, -0.08995756, 0.67291605, -0.08774385],
]


@pytest.mark.slow
def test_logits_are_those_of_the_official_code():
    name = "efficientnet-condconv-b0-8e"
    tensors = {key: value(key, *item) for key, item in weights(NETWORKS[name]).items()}
    model, variables = network("efficientnet_b0", 8)
    images = np.random.default_rng(1).standard_normal((4, 64, 64, 3)).astype(np.float32)
    converted = from_tensorflow(tensors, variables, ema=False)
    logits = jax.jit(model.apply)(converted, images)
    # Of a size of 1; measured 2e-5 apart over all 4000, from sums in another order.
    np.testing.assert_allclose(logits[:, :4], OFFICIAL_LOGITS, atol=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow writes the checkpoint: pip install 'condconv_jax[tf]'",
)
def test_a_whole_network_from_tensorflow(tmp_path):
    name = "efficientnet-condconv-b0-8e"
    script = write_tensorflow_checkpoint.__file__
    subprocess.run([sys.executable, script, name, tmp_path / "model.ckpt"], check=True)
    written, want = read_tensors(tmp_path), checkpoint_values(NETWORKS[name])
    jax.tree.map(np.testing.assert_array_equal, written, want)
    from_tensorflow(written, network("efficientnet_b0", 8)[1])
