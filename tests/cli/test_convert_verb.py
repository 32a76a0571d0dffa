import json
import re
from typing import ClassVar

import jax
import numpy as np
import pytest
from PIL import Image

from condconv_jax import interop, models, runtime
from condconv_jax.cli import main
from condconv_jax.interop import OfficialNetwork, timm_networks
from condconv_jax.interop.upcycling import _experts
from condconv_jax.models import EfficientNetB0, inverted_residual
from condconv_jax.models.inverted_residual import Stage

FIXTURES = "tests/interop/data"
NAME = "mobilenetv2_035"

# A static network of four blocks, which compiles in half the time of `trained`; its last block
# group is what has experts in a CondConv network.
CONFIG = """
from condconv_jax.config import classification


def get_config():
    config = classification("resnet50")
    config.model.width = 1 / 16
    config.model.depth = 0.1
    config.data.train = "train[:64]"
    config.data.eval = "test[:20]"
    config.batch_size = config.eval_batch_size = 16
    config.epochs = 1.0
    config.schedule.warmup_epochs = 0.25
    config.log_every = 1
    return config
"""


def said(capsys, *arguments):
    """What a command that works prints."""
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def scores(capsys, workdir, *more):
    """Metrics by name, as `evaluate` prints them."""
    lines = said(capsys, "evaluate", f"--workdir={workdir}", *more).splitlines()[1:]
    return {name: float(value) for name, value in map(str.split, lines)}


def flat(tree):
    """Arrays by path."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in found}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The argument that names it."""
    file = tmp_path_factory.mktemp("config") / "static.py"
    file.write_text(CONFIG)
    return f"--config={file}"


@pytest.fixture(scope="module")
def static(config, tmp_path_factory):
    """A finished run of it, of 4 steps."""
    workdir = tmp_path_factory.mktemp("static") / "run"
    assert main(["train", config, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def upcycled(static, tmp_path_factory):
    """It, with three experts in layer 5."""
    workdir = tmp_path_factory.mktemp("upcycled") / "run"
    arguments = [f"--from-static={static}", "--num-experts=3", f"--workdir={workdir}"]
    assert main(["convert", *arguments]) == 0
    return workdir


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    """Weights of a network of 3 classes for timm."""
    model = timm_networks.make(NAME, num_classes=3)
    like = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    draw = np.random.default_rng(0)

    def leaf(path, like):
        if path[-1].key in ("scale", "var"):
            return draw.uniform(0.5, 1.5, like.shape).astype(np.float32)
        values = draw.standard_normal(like.shape) / np.sqrt(max(1, np.prod(like.shape[:-1])))
        return values.astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(leaf, like)
    path = tmp_path_factory.mktemp("timm") / "network.safetensors"
    interop.write_safetensors(path, interop.to_timm(NAME, model, variables))
    return path


@pytest.fixture(scope="module")
def from_timm(timm_file, tmp_path_factory):
    """The work directory made of it."""
    workdir = tmp_path_factory.mktemp("from_timm") / "run"
    arguments = [f"--from-timm={timm_file}", f"--network={NAME}", f"--workdir={workdir}"]
    assert main(["convert", *arguments]) == 0
    return workdir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of three classes."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for folder in (root / split / name for split in ("train", "val") for name in "abc"):
        folder.mkdir(parents=True)
        for i in range(8):
            picture = draw.integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(picture).save(folder / f"{i}.png")
    return root


# A static network becomes a CondConv network.


def test_an_upcycled_run_is_as_good_as_the_static_one(static, upcycled, capsys):
    before, after = scores(capsys, static), scores(capsys, upcycled)
    assert after["examples"] == before["examples"] == 20
    assert after["top1"] == before["top1"]
    assert after["loss"] == pytest.approx(before["loss"], abs=1.01e-4)  # four digits are printed


def test_what_an_upcycled_run_is(static, upcycled):
    config = json.loads((upcycled / "config.json").read_text())
    before = json.loads((static / "config.json").read_text())
    assert config["model"].pop("num_experts") == 3
    assert before["model"].pop("num_experts") == 0
    assert config == before
    facts = runtime.WorkDir(upcycled).read_facts()
    assert facts.pop("converted_from") == {
        "static_run": str(static),
        "step": 4,
        "noise": interop.NOISE,
        "seed": 0,
    }
    assert facts == runtime.WorkDir(static).read_facts()
    tree, source = runtime.load_tree(upcycled), runtime.load_tree(static)
    assert int(tree["step"]) == 0
    params, old = flat(tree["params"]), flat(source["params"])
    routers = {key for key in params if key.startswith("router_")}
    assert {key.split("/")[0] for key in routers} == {"router_5"}
    assert params.keys() - routers == old.keys()
    for key, array in old.items():
        experts = params[key]
        if experts.shape != array.shape:
            assert key.startswith("layer_5/")
            # Each is of weight sigmoid(0).
            np.testing.assert_allclose(experts.sum(0) / 2, array, atol=1e-6)
        else:
            np.testing.assert_array_equal(experts, array)
    averages = flat(source["model_state"])
    for key, array in flat(tree["model_state"]).items():
        np.testing.assert_array_equal(array, averages[key])


def test_what_upcycling_says(static, tmp_path, capsys):
    workdir = tmp_path / "run"
    # Keys of the config go before --num-experts and its default.
    options = ["--noise=0.5", "--seed=3"]
    options += ["--config.model.num_experts=2", "--config.model.only_layer=6"]
    printed = said(
        capsys, "convert", f"--from-static={static}", *options, f"--workdir={workdir}", "--best"
    )
    first, last = printed.splitlines()
    # The classifier's 128 x 10 + 10 once more, and its router's 128 x 2 + 2.
    source = runtime.load_tree(static)["params"]
    before = sum(leaf.size for leaf in jax.tree.leaves(source))
    assert first == (
        f"{workdir}: {static}, step 4, with 2 experts in 1 layers, "
        f"{before:,} -> {before + 1290 + 258:,} parameters"
    )
    assert last == f"to train on from it: condconv train ... --config.init_from={workdir}"
    # Noise of that size and seed, and what is written down of it.
    kernel = source["classifier"]["kernel"]
    wanted = _experts(kernel, 2, 1 / 2, 0.5, "params/classifier/kernel", 3)
    experts = runtime.load_tree(workdir)["params"]["classifier"]["kernel"]
    np.testing.assert_allclose(experts, wanted, rtol=1e-6)
    origin = runtime.WorkDir(workdir).read_facts()["converted_from"]
    assert (origin["noise"], origin["seed"]) == (0.5, 3)


@pytest.mark.slow  # compiles the training step once more
def test_training_goes_on_from_the_same_loss(config, static, upcycled, tmp_path, capsys):
    def losses(source, *more):
        workdir = tmp_path / source.parent.name
        arguments = [config, *more, f"--config.init_from={source}", f"--workdir={workdir}"]
        assert "starts anew: nothing" in said(capsys, "train", *arguments)
        assert int(runtime.load_tree(workdir)["step"]) == 4
        return [row["loss"] for row in runtime.read_json_lines(workdir / "metrics.jsonl", "train")]

    with_experts = losses(upcycled, "--config.model.num_experts=3")
    without = losses(static)
    assert len(with_experts) == len(without) == 4
    # The first is of the weights taken over, on the same images.
    assert with_experts[0] == pytest.approx(without[0], rel=1e-5)
    assert np.isfinite(with_experts).all()
    assert with_experts[-1] != pytest.approx(without[-1], rel=1e-5)


# From timm and back.


def test_from_timm_and_back_is_the_same_file(timm_file, from_timm, tmp_path, capsys):
    path = tmp_path / "new" / "back.safetensors"
    printed = said(
        capsys, "convert", f"--to-timm={path}", f"--network={NAME}", f"--workdir={from_timm}"
    )
    assert path.read_bytes() == timm_file.read_bytes()
    assert f"for timm.create_model({NAME!r}, num_classes=3, checkpoint_path={str(path)!r})" in (
        printed
    )
    assert "data.STATISTICS['imagenet']" in printed


def test_what_a_run_from_timm_is(timm_file, from_timm, tmp_path, capsys):
    config = json.loads((from_timm / "config.json").read_text())
    assert config["model"]["name"] == "mobilenet_v2"
    assert config["model"]["width"] == 0.35
    assert config["model"]["padding"] == "SYMMETRIC"
    assert config["data"]["statistics"] == "imagenet"
    assert config["data"]["image_size"] == 224
    workdir = tmp_path / "tagged"
    tagged = [f"--from-timm={timm_file}", f"--network={NAME}.some_in1k", f"--workdir={workdir}"]
    first, images, last = said(capsys, "convert", *tagged).splitlines()
    # A tag says which weights: these may have been trained on other images.
    assert images.startswith("images: 224 pixels, normalised as 'imagenet'")
    count = sum(leaf.size for leaf in jax.tree.leaves(runtime.load_tree(from_timm)["params"]))
    assert first == (
        f"{workdir}: {NAME}.some_in1k from {timm_file}, 3 classes, {count:,} parameters"
    )
    assert last.endswith(f"--config.init_from={workdir}")
    assert runtime.WorkDir(workdir).read_facts()["converted_from"] == {
        "file": str(timm_file),
        "network": f"{NAME}.some_in1k",
        "weights": "timm's",
    }
    assert json.loads((workdir / "config.json").read_text()) == config


@pytest.mark.slow
def test_a_run_from_timm_is_evaluated_and_upcycled(from_timm, pictures, tmp_path, capsys):
    data = [
        f"--config.data.path={pictures}",
        "--config.data.image_size=32",
        "--config.eval_batch_size=8",
    ]
    before = scores(capsys, from_timm, *data)
    assert before["examples"] == 24
    workdir = tmp_path / "run"
    placed = ["--num-experts=2", "--config.model.begin_layer=19"]
    said(capsys, "convert", f"--from-static={from_timm}", *placed, f"--workdir={workdir}")
    after = scores(capsys, workdir, *data)
    assert after["top1"] == before["top1"]
    assert after["loss"] == pytest.approx(before["loss"], abs=1.01e-4)


@pytest.mark.slow
def test_a_network_of_experts_from_timm_and_back(tmp_path, capsys):
    name, file = "tf_efficientnet_cc_b0_4e", tmp_path / "cc.safetensors"
    model = timm_networks.make(name, num_classes=3)
    like = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    draw = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape).astype(np.float32), like)
    interop.write_safetensors(file, interop.to_timm(name, model, drawn))
    workdir, back = f"--workdir={tmp_path / 'run'}", tmp_path / "back.safetensors"
    said(capsys, "convert", f"--from-timm={file}", f"--network={name}", workdir)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["num_experts"] == 4
    said(capsys, "convert", f"--to-timm={back}", f"--network={name}", workdir)
    assert back.read_bytes() == file.read_bytes()


# From TensorFlow.


class SmallEfficientNet(EfficientNetB0):
    """The network of the committed checkpoint, which was never published."""

    PUBLISHED: ClassVar = {"cond_groups": (3,)}
    STAGES = (Stage(1, 3, 1, 1, 4), Stage(1, 3, 2, 2, 6), Stage(2, 5, 2, 2, 4))
    STEM = 4

    def head_channels(self):
        return 8


@pytest.fixture
def small_official(monkeypatch):
    """Makes the committed checkpoint's network one of the official ones; returns its name."""
    # Its channels are no multiples of 8.
    monkeypatch.setattr(inverted_residual, "scale_channels", lambda channels, width: channels)
    monkeypatch.setitem(models.MODELS, "efficientnet_small", SmallEfficientNet)
    name = "efficientnet-condconv-small"
    official = OfficialNetwork("efficientnet_small", num_experts=2, image_size=32)
    monkeypatch.setitem(interop.OFFICIAL, name, official)
    return name


def test_from_tensorflow(small_official, pictures, tmp_path, capsys):
    def convert(name, *more):
        workdir = tmp_path / name
        source = [f"--from-tensorflow={FIXTURES}/small", f"--network={small_official}"]
        printed = said(capsys, "convert", *source, *more, f"--workdir={workdir}")
        assert f"{small_official} from {FIXTURES}/small, 3 classes, " in printed
        return workdir

    averaged, raw = convert("averaged"), convert("raw", "--raw")
    config = json.loads((averaged / "config.json").read_text())
    assert config["model"]["num_experts"] == 2
    assert config["data"]["statistics"] == "efficientnet_condconv"
    tensors = interop.read_tensors(f"{FIXTURES}/small")
    for workdir, suffix in ((averaged, "/ExponentialMovingAverage"), (raw, "")):
        bias = runtime.load_tree(workdir)["params"]["classifier"]["bias"]
        np.testing.assert_array_equal(bias, tensors[f"{small_official}/head/dense/bias{suffix}"])
    found = scores(capsys, averaged, f"--config.data.path={pictures}", "--config.eval_batch_size=8")
    assert found["examples"] == 24
    assert np.isfinite(found["loss"])


def test_a_checkpoint_of_another_official_network(tmp_path, refused):
    line = refused(
        "convert",
        f"--from-tensorflow={FIXTURES}/small",
        "--network=efficientnet-condconv-b0-4e",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "from_tensorflow: the checkpoint does not fit" in line
    assert not (tmp_path / "run").exists()


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from-timm={timm}"], ["no --network; pass timm's name of it"]),
        (["--from-tensorflow=" + FIXTURES], ["no --network"]),
        (["--to-timm=x.safetensors"], ["no --network"]),
        (
            ["--from-timm={timm}", "--network=mobilenetv2_35"],
            ["unknown network 'mobilenetv2_35'", "'resnet50'", "did you mean 'mobilenetv2_035'?"],
        ),
        (
            ["--from-tensorflow=" + FIXTURES, "--network=efficientnet-condconv-b0"],
            ["unknown network", "did you mean 'efficientnet-condconv-b0-"],
        ),
        (["--from-timm=no.safetensors", f"--network={NAME}"], ["no file no.safetensors"]),
        (["--from-timm={timm}.txt", f"--network={NAME}"], ["no file", ".safetensors.txt"]),
        (
            ["--from-timm={damaged}", f"--network={NAME}"],
            ["damaged.safetensors is no safetensors file"],
        ),
        (
            ["--from-timm={timm}", "--network=mobilenetv2_050"],
            [
                "the file does not fit the network (",
                "conv_head.weight: float32 (1280, 112, 1, 1), wanted (1280, 160, 1, 1)",
                "name the network that it is of",
            ],
        ),
        (
            ["--from-timm={timm}", "--network=mobilenetv1_100"],
            ["blocks.0.0.conv_pw.weight: float32 (8, 16, 1, 1), wanted (64, 32, 1, 1)", "extra, "],
        ),
        (
            ["--from-tensorflow=nowhere", "--network=efficientnet-b0"],
            ["nowhere"],
        ),
        (
            ["--from-timm={timm}", f"--network={NAME}", "--config.model.width=1"],
            ["--config.model.width=1: the network's options come with its name; leave it out"],
        ),
        (["--from-timm={timm}", f"--network={NAME}", "--nois=1"], ["unknown argument '--nois=1'"]),
        (
            ["--from-timm={timm}", f"--network={NAME}", "--num-experts=4"],
            ["--num-experts says nothing with --from-timm; leave it out"],
        ),
        (
            ["--from-static={static}", f"--network={NAME}"],
            ["--network says nothing with --from-static"],
        ),
        (
            ["--from-static={static}", "--num-experts=4", "--config.model.num_experts=2"],
            ["--num-experts and --config.model.num_experts=... say the same; pass one"],
        ),
        (["--from-static={static}", "--noise=nan"], ["noise is nan; pass 0 or more"]),
        (["--from-static={static}", "--num-experts=0"], ["has 0 experts", "num_experts of 2 or"]),
        (["--from-timm=", f"--network={NAME}"], ["no file"]),
        (["--from-static={static}", "--num-experts=1"], ["has 1 experts", "num_experts of 2 or"]),
        (["--from-static={static}", "--num-experts=-2"], ["num_experts is -2"]),
        (["--from-static={static}", "--noise=-1"], ["noise is -1.0; pass 0 or more"]),
        (
            ["--from-static={static}", "--config.model.routing.activation=relu"],
            ["'relu' is 0 at 0", "use 'sigmoid' or 'softmax'"],
        ),
        (
            ["--from-static={static}", "--config.model.width=0.2"],
            [
                "layer_1/kernel: (7, 7, 3, 4), wanted (7, 7, 3, 13)",
                "change no options but those of",
            ],
        ),
        (["--from-static={static}", "--config.model.widht=1"], ["did you mean 'model.width'"]),
        (["--from-static=nowhere"], ["nowhere"]),
        (
            ["--from-static={upcycled}", "--num-experts=3"],
            ["has router_5 already; pass a static one, whose num_experts is 0"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_that_names_the_fix(
    arguments, words, static, upcycled, timm_file, tmp_path, refused
):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(timm_file.read_bytes()[:1000])
    paths = {"timm": timm_file, "damaged": damaged, "static": static, "upcycled": upcycled}
    arguments = [
        re.sub(r"\{(\w+)\}", lambda match: str(paths[match[1]]), argument) for argument in arguments
    ]
    line = refused("convert", *arguments, f"--workdir={tmp_path / 'run'}")
    assert line.startswith("condconv convert: ")
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_a_command_that_says_not_what(tmp_path, capsys):
    for arguments in ([], ["--from-timm=a", "--from-static=b"]):
        with pytest.raises(SystemExit) as caught:
            main(["convert", *arguments, f"--workdir={tmp_path}"])
        assert caught.value.code == 2
    assert "not allowed with argument --from-timm" in capsys.readouterr().err


def test_a_work_directory_that_holds_something(static, timm_file, from_timm, refused):
    before = (static / "config.json").read_text()
    source = ["convert", f"--from-timm={timm_file}", f"--network={NAME}"]
    line = refused(*source, f"--workdir={static}")
    assert f"convert: {static} holds a checkpoint of step 4; pass another directory" in line
    line = refused(*source, f"--workdir={from_timm}")
    assert "holds a checkpoint of step 0" in line
    # Nor may a run become its own upcycled one.
    line = refused("convert", f"--from-static={static}", f"--workdir={static}")
    assert "holds a checkpoint of step 4; pass another directory" in line
    assert (static / "config.json").read_text() == before


def test_a_work_directory_in_use(timm_file, tmp_path, refused):
    with runtime.WorkDir(tmp_path / "run").lock():
        line = refused(
            "convert",
            f"--from-timm={timm_file}",
            f"--network={NAME}",
            f"--workdir={tmp_path / 'run'}",
        )
    assert "is in use by process" in line
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            "resnet50",
            [
                "this is not timm's resnet50: width is 0.0625, there 1.0; depth is 0.1, there 1.0",
                "layers [5] are CondConv, there none",
            ],
        ),
        (NAME, [f"timm's {NAME} is MobileNetV2, this is ResNet50; pass one of resnet50"]),
        ("mobilenet", ["unknown network 'mobilenet'"]),
    ],
)
def test_what_is_no_network_of_timm_s(network, words, upcycled, tmp_path, refused):
    file = tmp_path / "x.safetensors"
    line = refused("convert", f"--to-timm={file}", f"--network={network}", f"--workdir={upcycled}")
    for word in words:
        assert word in line
    assert not file.exists()


def test_where_weights_for_timm_cannot_go(from_timm, tmp_path, refused):
    to = ["convert", f"--network={NAME}"]
    line = refused(*to, f"--to-timm={tmp_path / 'x.pth'}", f"--workdir={from_timm}")
    assert "x.pth must end in .safetensors" in line
    line = refused(*to, f"--to-timm={tmp_path / 'x.safetensors'}", f"--workdir={tmp_path / 'no'}")
    assert str(tmp_path / "no") in line
    assert not list(tmp_path.iterdir())


def test_a_converted_run_is_not_trained_in_place(config, upcycled, refused):
    """Its checkpoint has no optimiser; what it prints says how to train from it."""
    before = (upcycled / "config.json").read_text()
    line = refused("train", config, "--config.model.num_experts=3", f"--workdir={upcycled}")
    assert "checkpoints/0 does not fit the state (" in line
    assert "opt_state/1/1/count: missing" in line
    assert "to start another model from its weights" in line
    assert json.loads((upcycled / "config.json").read_text()) == json.loads(before)


def test_the_best_of_a_converted_run(upcycled, tmp_path, refused):
    line = refused(
        "convert", f"--from-static={upcycled}", "--best", f"--workdir={tmp_path / 'run'}"
    )
    assert "--best: no checkpoint in " in line
    assert "was kept for its evaluation; leave out --best, or train with config.keep_best" in line


@pytest.mark.slow  # another report, whose parts tests/cli/test_analyze.py looks at
def test_a_converted_run_is_analysed(upcycled, tmp_path, capsys):
    out = tmp_path / "report"
    said(capsys, "analyze", f"--workdir={upcycled}", f"--out={out}")
    summary = json.loads((out / "summary.json").read_text())["networks"][0]
    assert summary["kind"] == "3 experts"
    assert summary["train_seconds"] is None
    assert not (out / "figures" / "training_curves.png").exists()
    assert "Training curves" not in (out / "index.html").read_text()
