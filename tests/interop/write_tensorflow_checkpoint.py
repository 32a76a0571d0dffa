"""Writes checkpoints as the official EfficientNet code does, with values derived from the names.

    python write_tensorflow_checkpoint.py fixtures DIR           # tests/interop/data
    python write_tensorflow_checkpoint.py NETWORK PREFIX         # a name in NETWORKS

Needs TensorFlow to write; names, shapes and values need NumPy alone, so the tests know them.

The names are those that the official code gave its variables when it was run (tensorflow/tpu at
7dc921f, models/official/efficientnet, with TensorFlow 2.21 and Keras 2). Layers of tf.layers are
numbered within their variable scope. Those of Keras, the CondConv layers, are numbered over the
whole network, including a fused convolution that each block makes and does not use
(efficientnet_model.py:215), and carry the name scope of the Keras model, `model/`.
"""

import dataclasses
import sys
import zlib
from pathlib import Path

import numpy as np

EMA = "/ExponentialMovingAverage"


@dataclasses.dataclass(frozen=True)
class Network:
    """Blocks are (kernel, repeats, expansion, input channels, output channels, is CondConv)."""

    scope: str
    stem: int
    blocks: tuple[tuple[int, int, int, int, int, bool], ...]
    head: int
    classes: int
    experts: int = 0


def _b0(experts: int, depth: float = 1.0) -> tuple[tuple[int, int, int, int, int, bool], ...]:
    # condconv/efficientnet_condconv_builder.py:52
    blocks = (
        (3, 1, 1, 32, 16, False), (3, 2, 6, 16, 24, False), (5, 2, 6, 24, 40, False),
        (3, 3, 6, 40, 80, False), (5, 3, 6, 80, 112, True), (5, 4, 6, 112, 192, True),
        (3, 1, 6, 192, 320, True),
    )  # fmt: skip
    return tuple(
        (kernel, int(np.ceil(depth * repeats)), e, c, f, cond and experts > 0)
        for kernel, repeats, e, c, f, cond in blocks
    )


NETWORKS = {
    "small": Network(
        "efficientnet-condconv-small",
        4,
        ((3, 1, 1, 4, 4, False), (3, 1, 2, 4, 6, False), (5, 2, 2, 6, 4, True)),
        8,
        3,
        2,
    ),
    "efficientnet-b0": Network("efficientnet-b0", 32, _b0(0), 1280, 1000),
    "efficientnet-condconv-b0-4e": Network(
        "efficientnet-condconv-b0-4e", 32, _b0(4), 1280, 1000, 4
    ),
    "efficientnet-condconv-b0-8e": Network(
        "efficientnet-condconv-b0-8e", 32, _b0(8), 1280, 1000, 8
    ),
    "efficientnet-condconv-b0-8e-depth": Network(
        "efficientnet-condconv-b0-8e-depth", 32, _b0(8, 1.1), 1280, 1000, 8
    ),
}


def weights(network: Network) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and scale of the values of every weight and batch-norm average, by official name."""
    found: dict[str, tuple[tuple[int, ...], float]] = {}
    scope = network.scope
    # Experts are mixed by weights of about a half.
    mixed = 2 * max(network.experts, 1) ** -0.5

    def conv(name: str, *shape: int) -> None:
        found[name] = shape, np.prod(shape[:-1]) ** -0.5

    def bias(name: str, size: int) -> None:
        found[name] = (size,), 0.1

    def norm(place: str, number: int, size: int) -> None:
        suffix = f"_{number}" if number else ""
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            bias(f"{scope}/{place}/tpu_batch_normalization{suffix}/{leaf}", size)

    conv(f"{scope}/stem/conv2d/kernel", 3, 3, 3, network.stem)
    norm("stem", 0, network.stem)
    index = cond_index = 0
    for kernel, repeats, expansion, first, f, cond in network.blocks:
        for c in [first] + [f] * (repeats - 1):
            place, inner = f"blocks_{index}", c * expansion
            keras = f"{scope}/model/{place}"
            number = 0
            if cond:
                conv(f"{scope}/{place}/dense/kernel", c, network.experts)
                bias(f"{scope}/{place}/dense/bias", network.experts)
            if expansion != 1:
                if cond:
                    name = f"{keras}/cond_conv2d_{3 * cond_index + 1}/condconv_kernel"
                    found[name] = (network.experts, c * inner), mixed * c**-0.5
                else:
                    conv(f"{scope}/{place}/conv2d/kernel", 1, 1, c, inner)
                norm(place, number, inner)
                number += 1
            if cond:
                suffix = f"_{cond_index}" if cond_index else ""
                name = f"{keras}/depthwise_cond_conv2d{suffix}/depthwise_condconv_kernel"
                found[name] = (network.experts, kernel**2 * inner), mixed / kernel
            else:
                name = f"{scope}/{place}/depthwise_conv2d/depthwise_kernel"
                found[name] = (kernel, kernel, inner, 1), 1 / kernel
            norm(place, number, inner)
            bottleneck = max(1, int(c * 0.25))
            conv(f"{scope}/{place}/se/conv2d/kernel", 1, 1, inner, bottleneck)
            bias(f"{scope}/{place}/se/conv2d/bias", bottleneck)
            conv(f"{scope}/{place}/se/conv2d_1/kernel", 1, 1, bottleneck, inner)
            bias(f"{scope}/{place}/se/conv2d_1/bias", inner)
            if cond:
                name = f"{keras}/cond_conv2d_{3 * cond_index + 2}/condconv_kernel"
                found[name] = (network.experts, inner * f), mixed * inner**-0.5
            else:
                suffix = "_1" if number else ""
                conv(f"{scope}/{place}/conv2d{suffix}/kernel", 1, 1, inner, f)
            norm(place, number + 1, f)
            index += 1
            cond_index += cond
    conv(f"{scope}/head/conv2d/kernel", 1, 1, network.blocks[-1][4], network.head)
    norm("head", 0, network.head)
    conv(f"{scope}/head/dense/kernel", network.head, network.classes)
    bias(f"{scope}/head/dense/bias", network.classes)
    return found


def checkpoint_values(network: Network, *, slots: bool = True) -> dict[str, np.ndarray]:
    """All that a checkpoint of training holds, by name; the weights and shadows if not slots."""
    values = {}
    for name, (shape, scale) in weights(network).items():
        trained = "moving_" not in name
        copies = ["", EMA] + (["/RMSProp", "/RMSProp_1"] if trained and slots else [])
        for copy in copies:
            values[name + copy] = value(name + copy, shape, scale)
    if slots:
        values["global_step"] = np.int64(7)
    return values


def value(name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Values that keep activations of one size through the network, from the name as seed."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if "moving_variance" in name:
        # About what activation, gate and the other layers leave of a block's variance.
        return draw.uniform(0.32, 0.52, shape).astype(np.float32)
    drawn = scale * draw.standard_normal(shape)
    return (drawn + ("gamma" in name)).astype(np.float32)


ODD_VALUES = {
    "half": np.array([0.5, -2, 65504], np.float16),
    "double": np.array([[1e300, -0.0]]),
    "int8": np.array([-128, 127], np.int8),
    "uint16": np.array([65535, 1], np.uint16),
    "int64": np.array(-(2**62)),
    "bool": np.array([True, False, True]),
    "complex": np.array([1 + 2j], np.complex64),
    "empty": np.zeros((0, 3), np.float32),
}


def write(prefix: Path, values: dict[str, np.ndarray], **saver_options) -> None:
    """Writes values as variables, those of odd rank to a second data file if sharded."""
    import tensorflow as tf

    v1 = tf.compat.v1
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default():
        variables, feeds = {}, {}
        for name, array in values.items():
            with tf.device(f"/cpu:{np.ndim(array) % 2}"):
                initial = v1.placeholder(tf.as_dtype(array.dtype), np.shape(array))
                variables[name] = v1.Variable(initial, use_resource=False)
            feeds[initial] = array
        saver = v1.train.Saver(variables, save_relative_paths=True, **saver_options)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer(), feeds)
            saver.save(session, str(prefix), write_meta_graph=False)


def write_fixtures(folder: Path) -> None:
    """Writes a network, and small checkpoints of every kind that TensorFlow writes."""
    import tensorflow as tf

    v1 = tf.compat.v1
    write(folder / "small" / "model.ckpt-7", checkpoint_values(NETWORKS["small"]))
    bfloat16 = {"bfloat16": np.array([1.5, -3], tf.bfloat16.as_numpy_dtype)}
    write(folder / "sharded" / "model.ckpt", ODD_VALUES | bfloat16, sharded=True)
    write(
        folder / "format_v1" / "model.ckpt",
        {"a": np.ones(2, np.float32)},
        write_version=v1.train.SaverDef.V1,
    )
    model = tf.Module()
    model.kernel = tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3))
    tf.train.Checkpoint(model=model, note=tf.Variable(["text"])).save(
        str(folder / "tensorflow2" / "ckpt")
    )
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("plain", initializer=np.arange(3.0), use_resource=False)
        v1.get_variable(
            "parts",
            (4, 2),
            initializer=v1.zeros_initializer(),
            partitioner=v1.fixed_size_partitioner(2),
            use_resource=False,
        )
        session.run(v1.global_variables_initializer())
        (folder / "partitioned").mkdir(parents=True, exist_ok=True)
        v1.train.Saver(save_relative_paths=True).save(
            session, str(folder / "partitioned" / "model.ckpt"), write_meta_graph=False
        )


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "fixtures":
        write_fixtures(where)
    else:
        write(where, checkpoint_values(NETWORKS[what]))
