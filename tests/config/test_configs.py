"""Every config file loads, names a network that can be built, and is locked."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import data, models
from condconv_jax.analysis import count_madds
from condconv_jax.cli.runs import write_run
from condconv_jax.config import (
    DEFAULTS,
    build,
    classification,
    make_model,
    train_as_efficientnet,
    train_options,
)

CONFIGS = Path("configs")
FILES = sorted(CONFIGS.glob("*/*.py"))
CASES = [
    ("fashion_mnist/mobilenet_v1.py", "static"),
    ("fashion_mnist/mobilenet_v1.py", "condconv"),
    ("cifar100/mobilenet_v1.py", "static"),
    ("cifar100/mobilenet_v1.py", "condconv"),
    ("cifar100/claims.py", "mobilenet_v1"),
    ("cifar100/claims.py", "resnet_cifar,large"),
    ("folder/mobilenet_v1.py", None),
    *(("cifar100/networks.py", name) for name in models.names("classification")),
    ("imagenet/mobilenet_v1.py", "0.25,32"),
    ("imagenet/mobilenet_v2.py", "condconv"),
    ("imagenet/mnasnet_a1.py", "condconv"),
    ("imagenet/resnet50.py", "shake"),
    ("imagenet/efficientnet.py", "b0-8e"),
    ("cifar100/networks.py", "resnet50,static"),
    ("cifar100/networks.py", "msdnet,static"),
    ("speech_commands/mobilenet_v1.py", "0.25,8"),
    ("speech_commands/mobilenet_v1.py", "0.5,4,generated"),
    ("bccd/ssd300_mobilenet_v1.py", "static"),
    ("bccd/ssd300_mobilenet_v1.py", "condconv"),
    ("coco/ssd300_mobilenet_v1.py", "0.5,8"),
]
# It needs the work directory of a run: tests/cli/test_convert_verb.py has one.
OF_A_RUN = "folder/finetune.py"


def load(name):
    spec = importlib.util.spec_from_file_location("config_under_test", CONFIGS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_config_is_left_out():
    assert {str(f.relative_to(CONFIGS)) for f in FILES} == {name for name, _ in CASES} | {OF_A_RUN}


@pytest.mark.parametrize(("name", "arg"), CASES)
def test_network_builds(name, arg):
    module = load(name)
    config = module.get_config() if arg is None else module.get_config(arg)
    assert config.is_locked
    assert "condconv train --config=" in module.__doc__
    model = make_model(config.model.to_dict(), 10)
    size = config.data.image_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    if config.task == "detection":
        assert outputs.logits.shape == (2, len(model.anchors(size)), 11)
    else:
        assert outputs.shape == (2, 10)
    kernels = [leaf.ndim for leaf in jax.tree.leaves(variables["params"])]
    assert (5 in kernels) == (config.model.get("num_experts", 0) > 1)
    condconv = arg is None or not (arg.endswith("static") or arg.startswith("msdnet"))
    condconv &= name != "cifar100/claims.py"  # whose experts are the claims' to choose
    assert (5 in kernels) == condconv


def test_condconv_costs_little_more_than_static():
    module = load("fashion_mnist/mobilenet_v1.py")
    static, conditional = (
        count_madds(make_model(module.get_config(arg).model.to_dict(), 10), 28)
        for arg in ("static", "condconv")
    )
    assert 1 < conditional / static < 2


@pytest.mark.parametrize(
    "name",
    [
        "fashion_mnist/mobilenet_v1.py",
        "cifar100/mobilenet_v1.py",
        "bccd/ssd300_mobilenet_v1.py",
    ],
)
def test_unknown_arguments_are_refused(name):
    with pytest.raises(ValueError, match="unknown network 'dense'; choose one of 'condconv'"):
        load(name).get_config("dense")


def test_finetuning_takes_the_network_and_its_images_but_not_how_it_was_trained(tmp_path):
    config = classification("efficientnet_b0")
    train_as_efficientnet(config)
    config.model.num_experts = 4
    config.update({"mixup": 0.2, "data": {"image_size": 40, "statistics": "inception"}})
    config.data.update({"crop": "pad", "on_device": True, "central_fraction": 0.5})
    params = {"params": {"kernel": np.zeros(1, np.float32)}}
    write_run("test", str(tmp_path / "run"), config.to_dict(), params, {})

    found = load(OF_A_RUN).get_config(str(tmp_path / "run"))
    assert found.is_locked
    assert found.init_from == str(tmp_path / "run")
    assert found.model.to_dict() == {**config.model.to_dict(), "batch_norm_group": 0}
    for key in ("image_size", "statistics", "interpolation", "central_fraction"):
        assert found.data[key] == config.data[key]
    # All else as of a config that starts from the defaults: the rate is the one that is written.
    untrained = classification("efficientnet_b0").to_dict()
    for key in ("optimizer", "mixup", "label_smoothing", "average_decay", "eval_batch_size"):
        assert found.to_dict()[key] == untrained[key]
    assert found.data.on_device is False
    pictures, labels = np.zeros((64, 8, 8, 3), np.uint8), np.arange(64) % 2
    source = data.ArraySource(pictures, labels, ("a", "b"), "train")
    rate = train_options(found.to_dict(), source).learning_rate
    assert max(rate(step) for step in range(20)) == pytest.approx(0.01)


def test_what_the_configs_of_runs_and_networks_refuse():
    with pytest.raises(ValueError, match=r"no run; pass finetune\.py:WORKDIR"):
        load("folder/finetune.py").get_config()
    with pytest.raises(ValueError, match="'mobilenet_v1,huge'; pass NETWORK or NETWORK,large"):
        load("cifar100/claims.py").get_config("mobilenet_v1,huge")
    networks = load("cifar100/networks.py")
    with pytest.raises(ValueError, match="'resnet50,8'; pass NAME or NAME,static"):
        networks.get_config("resnet50,8")
    with pytest.raises(ValueError, match=r"unknown model 'resnet'.*did you mean 'resnet50'"):
        networks.get_config("resnet")
    # A network of another task.
    with pytest.raises(ValueError, match=r"config\.classification: unknown model 'ssd300_mobile"):
        networks.get_config("ssd300_mobilenet_v1")
    with pytest.raises(ValueError, match=r"'wide'; pass WIDTH,EXPERTS, such as 0\.75,8"):
        load("coco/ssd300_mobilenet_v1.py").get_config("wide")
    for arg in ("wide", "0.25,8,made"):
        with pytest.raises(ValueError, match=rf"'{arg}'; pass WIDTH,EXPERTS or WIDTH,EXPERTS,gen"):
            load("speech_commands/mobilenet_v1.py").get_config(arg)


def test_every_network_has_a_config_of_all_of_its_options():
    for name in models.names():
        config = DEFAULTS[models.MODELS[name].TASK](name)
        assert config.model.name == name
        assert set(config.model) == {"name", *models.default_options(name)}
        model = make_model(config.model.to_dict(), 7)
        assert model == models.create(name, 7, dtype="float32")


def test_defaults_train_on_the_embedded_images():
    config = classification().to_dict()
    experiment = build(config)
    assert len(experiment.class_names) == 10
    options = train_options(config, experiment.train_source)
    assert options.settings.total_steps == round(10 * 6000 / 128)
    # An epoch is 46.875 steps: evaluations fall on the first step that completes one.
    assert options.settings.evaluate_every == 6000 / 128
    batch = next(options.train_batches(0))
    assert batch["image"].shape == (128, 28, 28, 3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 2**32, r"config\.seed is 4294967296; pass 0 to 2\*\*32 - 1"),
        ("seed", -1, r"config\.seed is -1; pass 0 to"),
        ("data.area", (0.5,), r"got area \(0\.5,\); wants two numbers, lowest and highest"),
        ("data.randaugment_layers", 0, r"RandAugment: got layers 0; pass at least 1"),
        ("optimizer.clip_norm", -1.0, r"clip_norm is -1\.0; pass 0 \(no limit\) or more"),
    ],
)
def test_values_that_cannot_be_are_refused_before_batches_are_read(key, value, message):
    config = classification()
    config.data.augment = "randaugment"
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        train_options(config.to_dict(), build(config.to_dict()).train_source)


def test_the_limit_of_damaged_pictures_is_named(tmp_path):
    for name in ("train/ant/0.png", "test/ant/0.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"no picture")
    config = classification().to_dict()
    config["data"] |= {"name": "folder", "path": str(tmp_path)}
    with pytest.raises(ValueError, match=r"cannot decode .*; or raise config\.data\.max_corrupt"):
        next(build(config).eval_batches())


def test_splits_of_other_classes_are_refused(tmp_path):
    for split, classes in (("train", 3), ("test", 2)):
        images = np.zeros((classes, 8, 8, 3), np.uint8)
        labels = np.arange(classes)
        np.savez(tmp_path / f"{split}.npz", x=images, y=labels, names=labels.astype(str))
    config = classification().to_dict()
    config["data"] |= {"name": "npz", "path": str(tmp_path)}
    with pytest.raises(ValueError, match="'train' has 3 classes, 'test' 2, of other names"):
        build(config)
    # Evaluation alone needs no training images.
    assert build(config, train=False).train_source is None
