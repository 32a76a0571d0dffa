"""The ImageNet configs are of networks whose published MADDs hold, trained as published."""

import pytest
from test_configs import load

from condconv_jax import models
from condconv_jax.analysis.published import PUBLISHED
from condconv_jax.config import make_model
from condconv_jax.models.routing import RoutingOptions

# Options that change how a network trains but none of its multiply-adds.
OF_TRAINING = (
    "dropout", "drop_path", "batch_norm_momentum", "batch_norm_epsilon", "batch_norm_bias",
    "batch_norm_group", "dtype",
)  # fmt: skip

# Config, and the heading and name of a row of the published tables, whose MADDs
# tests/cli/test_madds_verb.py counts.
ROWS = [
    ("mobilenet_v1.py", "1.0,1", "MobileNetV1", "1.0x static"),
    ("mobilenet_v1.py", "1.0,8", "MobileNetV1", "1.0x, 8 experts"),
    ("mobilenet_v1.py", "0.75,32", "MobileNetV1", "0.75x, 32 experts"),
    ("mobilenet_v1.py", "0.5,32", "MobileNetV1", "0.5x, 32 experts"),
    ("mobilenet_v1.py", "0.25,32", "MobileNetV1", "0.25x, 32 experts"),
    ("mobilenet_v2.py", "static", "MobileNetV2", "static"),
    ("mobilenet_v2.py", "condconv", "MobileNetV2", "8 experts (default)"),
    ("mnasnet_a1.py", "static", "MnasNet", "A1 static"),
    ("mnasnet_a1.py", "condconv", "MnasNet", "A1, 8 experts (default)"),
    ("resnet50.py", "static", "ResNet-50", "static"),
    ("resnet50.py", "8", "ResNet-50", "8 experts (default)"),
    ("resnet50.py", "drop", "ResNet-50", "8 experts (default)"),
    ("resnet50.py", "shake", "ResNet-50", "8 experts (default)"),
    ("efficientnet.py", "b0", "EfficientNet", "B0 static"),
    ("efficientnet.py", "b0-4e", "EfficientNet", "B0-4e"),
    ("efficientnet.py", "b0-8e", "EfficientNet", "B0-8e"),
    ("efficientnet.py", "b0-8e-depth", "EfficientNet", "B0-8e-depth"),
]


@pytest.mark.parametrize(("file", "arg", "network", "name"), ROWS)
def test_network_is_a_published_one(file, arg, network, name):
    config = load(f"imagenet/{file}").get_config(arg)
    (row,) = (row for row in PUBLISHED if (row.network, row.name) == (network, name))
    options = models.default_options(row.model) | dict(row.options)
    same = {key: options[key] for key in OF_TRAINING if key in options}
    model = make_model(config.model.to_dict(), 1000).clone(**same, routing=RoutingOptions())
    assert model == models.create(row.model, dtype="float32", **row.options)
    assert (config.data.image_size, config.data.dataset) == (224, "imagenet2012")


def test_every_paper_row_of_table_1_has_a_config():
    with_config = {(network, name) for _, _, network, name in ROWS}
    of_table = {(row.network, row.name) for row in PUBLISHED if row.source == "table 1"}
    # The second reading of ResNet-50's count is an option of the first.
    assert of_table - with_config == {("ResNet-50", "8 experts, classifier for projection")}


def test_efficientnet_trains_as_the_official_code():
    """The flags of main.py, and of efficientnet_condconv_builder.py the dropout of 0.25."""
    config = load("imagenet/efficientnet.py").get_config("b0-8e")
    steps_per_epoch = 1281167 / config.batch_size
    assert round(config.epochs * steps_per_epoch) == pytest.approx(218949, abs=5)
    assert config.schedule.learning_rate * config.batch_size / 256 == pytest.approx(0.128)
    assert (config.model.dropout, config.model.drop_path) == (0.25, 0.2)
    assert config.optimizer.to_dict() == {
        "name": "rmsprop", "momentum": 0.9, "nesterov": False, "rms_decay": 0.9, "epsilon": 1e-3,
        "weight_decay": 1e-5, "decay": "all_but_batch_norm", "clip_norm": 0.0,
        "adaptive_clip": 0.0, "offset_rate": 1.0,
    }  # fmt: skip
    assert config.average_decay == 0.9999
    assert (config.model.batch_norm_momentum, config.model.batch_norm_epsilon) == (0.99, 1e-3)
    assert load("imagenet/efficientnet.py").get_config("b0").model.dropout == 0.2


def test_mnasnet_trains_as_the_official_code():
    """The flags of mnasnet_main.py; its learning rate is for batches of 256 as well."""
    config = load("imagenet/mnasnet_a1.py").get_config("condconv")
    assert config.batch_size == 1024
    assert round(config.epochs * 1281167 / config.batch_size) == pytest.approx(437898, abs=5)
    assert (config.schedule.learning_rate, config.schedule.per_examples) == (0.016, 256)
    assert (config.optimizer.name, config.optimizer.momentum) == ("rmsprop", 0.9)
    assert (config.optimizer.weight_decay, config.average_decay) == (1e-5, 0.9999)
    assert (config.label_smoothing, config.model.dropout) == (0.1, 0.2)


def test_what_regularises_experts():
    noise = {
        arg: load("imagenet/resnet50.py").get_config(arg).model.routing.noise
        for arg in ("static", "2", "8", "drop", "shake")
    }
    assert noise == {"static": "none", "2": "none", "8": "none", "drop": "drop", "shake": "shake"}
    for file, static, condconv in (
        ("mobilenet_v1.py", "0.5,1", "0.5,4"),
        ("resnet50.py", "static", "2"),
    ):
        plain, more = (load(f"imagenet/{file}").get_config(arg) for arg in (static, condconv))
        assert (plain.mixup, plain.data.augment, plain.model.dropout) == (0.0, "none", 0.0)
        assert (more.mixup, more.data.augment) == (0.2, "autoaugment")
        assert more.model.dropout > 0


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match="'wide'; pass WIDTH,EXPERTS"):
        load("imagenet/mobilenet_v1.py").get_config("wide")
    with pytest.raises(ValueError, match=r"unknown variant 'b0-8'.*did you mean 'b0-8e'"):
        load("imagenet/efficientnet.py").get_config("b0-8")
    for file in ("mobilenet_v2.py", "mnasnet_a1.py"):
        with pytest.raises(ValueError, match="unknown network 'dense'"):
            load(f"imagenet/{file}").get_config("dense")
    with pytest.raises(ValueError, match="unknown variant '4'"):
        load("imagenet/resnet50.py").get_config("4")
