"""The verbs on a detector: train, go on, evaluate, predict, start from a classifier."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
from detection_data import write_detection_data
from PIL import Image

from condconv_jax import runtime
from condconv_jax.cli import main

DETECTOR = [
    "--config=configs/bccd/ssd300_mobilenet_v1.py:condconv",
    "--config.model.width=0.1",
    "--config.model.num_experts=2",
    "--config.model.begin_layer=14",
    "--config.data.image_size=48",
    "--config.data.max_boxes=4",
    "--config.detections.max_detections=10",
    "--config.batch_size=8",
    "--config.eval_batch_size=8",
    "--config.epochs=2",
    "--config.schedule.warmup_epochs=0.5",
    "--config.eval_every_epochs=1",
    "--config.keep_last=5",
    "--config.log_every=1",
]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Arguments of a run of 4 steps."""
    root = write_detection_data(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 10})
    return [*DETECTOR, f"--config.data.path={root}"]


@pytest.fixture(scope="module")
def detector(arguments, tmp_path_factory):
    """The work directory of a finished run."""
    workdir = tmp_path_factory.mktemp("detector") / "run"
    assert main(["train", *arguments, f"--workdir={workdir}"]) == 0
    return workdir


def rows(workdir, kind):
    return runtime.read_json_lines(workdir / "metrics.jsonl", kind)


def scores_in(printed):
    """The lines of `condconv evaluate`, {"ap50": "0.1234", ...}."""
    return dict(line.strip().rsplit(maxsplit=1) for line in printed.splitlines()[1:])


def test_what_a_run_leaves(detector):
    assert [row["step"] for row in rows(detector, "train")] == [1, 2, 3, 4]
    for row in rows(detector, "eval"):
        assert row["examples"] == 10
        assert {"ap", "ap50", "ap/square", "ap50/disc", "loss", "box_loss"} <= set(row)
    assert json.loads((detector / "data.json").read_text())["class_names"] == ["square", "disc"]


def test_evaluate_repeats_the_last_evaluation_and_finds_the_best(detector, capsys):
    assert main(["evaluate", f"--workdir={detector}"]) == 0
    printed = scores_in(capsys.readouterr().out)
    last = rows(detector, "eval")[-1]
    assert printed.pop("examples") == "10"
    assert printed == {name: f"{last[name]:.4f}" for name in printed}
    assert {"loss", "ap", "ap50", "ap/square", "ap50/disc"} <= set(printed)
    assert main(["evaluate", "--best", f"--workdir={detector}"]) == 0
    best = max(rows(detector, "eval"), key=lambda row: (row["ap"], row["step"]))
    assert f"step {best['step']}, on coco 'val'" in capsys.readouterr().out


def test_going_on_ends_with_the_weights_of_an_undisturbed_run(detector, arguments, tmp_path):
    parts = tmp_path / "parts"
    shutil.copytree(detector, parts)
    shutil.rmtree(parts / "checkpoints" / "4")
    assert main(["train", *arguments, f"--workdir={parts}"]) == 0
    jax.tree.map(np.testing.assert_array_equal, *map(runtime.load_tree, (detector, parts)))
    clock = ("seconds", "images_per_second", "input_wait")
    whole, again = (
        [{k: v for k, v in row.items() if k not in clock} for row in rows(run, "train")]
        for run in (detector, parts)
    )
    assert whole == again
    assert rows(detector, "eval") == rows(parts, "eval")


def test_predict_draws_and_names_what_it_cannot_read(detector, arguments, tmp_path, capsys):
    data = arguments[-1].partition("=")[2]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = [f"{data}/val", f"{data}/train/0.png", str(tmp_path / "broken.png")]
    options = [f"--workdir={detector}", f"--out={tmp_path / 'drawn'}", "--threshold=0"]
    assert main(["predict", *options, *pictures]) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith(f"{data}/val/0.png: ")
    counts = sum(int(word) for word in lines[0].split(": ")[1].split() if word.isdecimal())
    assert counts == 10  # of any score, as many as there may be
    assert lines[-1] == f"drawn: {tmp_path / 'drawn'}"
    assert "broken.png: decode_image: cannot decode" in error
    assert "1 of 12 pictures could not be read" in error
    # 0.png is there twice, of two folders.
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {*(f"{number}.png" for number in range(10)), "0_2.png"}
    with Image.open(tmp_path / "drawn" / "0.png") as picture:
        assert picture.size == (64, 48)
        assert not np.array_equal(np.asarray(picture), Image.open(f"{data}/val/0.png"))
    capsys.readouterr()
    assert main(["predict", f"--workdir={detector}", "--threshold=1", f"{data}/val/0.png"]) == 0
    assert capsys.readouterr().out == f"{data}/val/0.png: nothing\n"


def test_predict_never_looks_at_or_draws_over_its_own_pictures(
    detector, arguments, tmp_path, refused
):
    data = arguments[-1].partition("=")[2]
    shutil.copytree(f"{data}/val", tmp_path / "pictures")
    before = (tmp_path / "pictures" / "0.png").read_bytes()
    given = ["predict", f"--workdir={detector}", str(tmp_path)]
    for _ in range(2):
        assert main([*given, f"--out={tmp_path / 'drawn'}"]) == 0
        assert len(list((tmp_path / "drawn").iterdir())) == 10
    one, here = str(tmp_path / "pictures" / "0.png"), f"--out={tmp_path / 'pictures'}"
    assert "holds " in refused("predict", f"--workdir={detector}", one, here)
    line = refused("predict", f"--workdir={detector}", str(tmp_path / "pictures"), here)
    assert "is the folder of the pictures; pass another one" in line
    assert (tmp_path / "pictures" / "0.png").read_bytes() == before


def test_predict_of_a_classifier(trained, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "ab":
        image = rng.integers(0, 256, (30, 28, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    assert main(["predict", f"--workdir={trained}", "--top=2", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'a.png'}: ")
    assert second.startswith(f"{tmp_path / 'b.png'}: ")
    scores = [float(words.split()[-1]) for words in first.split(": ")[1].split(", ")]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def test_predictions_that_cannot_be(detector, trained, tmp_path, refused):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken, workdir = str(tmp_path / "broken.png"), f"--workdir={detector}"
    (tmp_path / "empty").mkdir()
    for given, words in (
        ([workdir, "nowhere.jpg"], "no picture 'nowhere.jpg'; pass files or folders"),
        ([workdir, str(tmp_path / "empty")], "no picture in "),
        ([workdir, broken], "none of the 1 pictures could be read"),
        ([workdir, broken, "--threshold=2"], "--threshold is 2.0; pass a score, 0 to 1"),
        ([f"--workdir={trained}", broken, "--top=0"], "--top is 0; pass at least 1"),
        ([f"--workdir={trained}", broken, "--out=x"], "--out: a classifier has no use for it"),
        ([f"--workdir={trained}", broken, "--threshold=1"], "--threshold: a classifier has no use"),
        ([workdir, broken, "--top=2"], "--top: a detector has no use for it; leave it out"),
    ):
        assert words in refused("predict", *given)


@pytest.mark.slow
def test_a_static_detector_becomes_one_with_experts(arguments, tmp_path, capsys):
    static, upcycled = tmp_path / "static", tmp_path / "upcycled"
    options = ["--config.model.num_experts=0", "--config.epochs=1", f"--workdir={static}"]
    assert main(["train", *arguments, *options]) == 0
    convert = ["convert", f"--from-static={static}", "--num-experts=2", f"--workdir={upcycled}"]
    assert main(convert) == 0
    capsys.readouterr()
    printed = []
    for run in (static, upcycled):
        assert main(["evaluate", f"--workdir={run}"]) == 0
        printed.append(capsys.readouterr().out.split("\n", 1)[1])
    # The same function, to the digits printed.
    assert printed[0] == printed[1]


@pytest.mark.slow
def test_one_category_alone_and_a_detector_of_others_to_start_from(
    detector, arguments, tmp_path, capsys
):
    options = ["--config.data.categories=('disc',)", f"--config.init_from={detector}"]
    assert main(["train", *arguments, *options, "--config.epochs=1", f"--workdir={tmp_path}"]) == 0
    out, error = capsys.readouterr()
    assert "on 16 images of 1 classes" in out
    assert "starts anew: predictor_12/classes/kernel, predictor_12/classes_bias" in out
    assert "predictor_12/boxes" not in out
    assert "16 boxes of other categories left out" in error
    assert {"ap/disc"} == {name for name in rows(tmp_path, "eval")[-1] if name.startswith("ap/")}


@pytest.mark.slow
def test_averages_micro_batches_and_experts_in_parts(arguments, tmp_path):
    options = ["--config.average_decay=0.9", "--config.expert_parts=2", "--config.batch_size=16"]
    options += ["--config.micro_batches=2", "--config.loss.class_loss=hard_negative"]
    options += ["--config.model.dtype=bfloat16", f"--workdir={tmp_path}"]
    assert main(["train", *arguments, *options]) == 0
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 0
    assert [row["step"] for row in rows(tmp_path, "train")] == [1, 2]
    # The averages are what is evaluated: another row than the weights themselves would give.
    tree = runtime.load_tree(tmp_path)
    assert set(tree["averages"]) == {"params", "model_state"}


def test_without_what_evaluates_nothing_is_trained(arguments, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    line = refused("train", *arguments, f"--workdir={tmp_path / 'run'}")
    assert "faster-coco-eval is not installed; install the extra with pip install" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_starting_from_a_classifier_takes_its_backbone(arguments, trained, tmp_path, capsys):
    # As narrow and with as many experts; the classifier ends where the extra layers begin.
    options = [f"--config.init_from={trained}", "--config.epochs=1", f"--workdir={tmp_path}"]
    quiet = ["--config.schedule.learning_rate=1e-9", "--config.schedule.warmup_epochs=0"]
    assert main(["train", *arguments, *options, *quiet]) == 0
    printed = capsys.readouterr().out
    assert f"weights from {trained}; starts anew: layer_15, layer_16" in printed
    assert "predictor_18, router_15" in printed
    loaded = (runtime.load_tree(path, only=("params",)) for path in (trained, tmp_path))
    theirs, ours = (tree["params"] for tree in loaded)
    for module in ("layer_1", "layer_7", "layer_14", "router_14"):
        # But for two steps of next to no length.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours[module], theirs[module]
        )
    assert not np.allclose(ours["router_15"]["kernel"], theirs["router_15"]["kernel"], atol=1e-3)


def test_starts_and_configs_that_cannot_be(arguments, tiny, detector, trained, tmp_path, refused):
    workdir = f"--workdir={tmp_path / 'new'}"
    wider = "--config.model.width=0.2"
    for given, words in (
        ([*arguments, f"--config.init_from={trained}", wider], "the network wants"),
        ([*tiny, f"--config.init_from={detector}"], "only a detector starts from weights of ano"),
        ([*arguments, "--config.loss.class_loss=focl"], "unknown class_loss 'focl'"),
        ([*arguments, "--config.loss.focal_alpha=2.0"], "config.loss.focal_alpha is 2.0; pass 0"),
        ([*arguments, "--config.loss.box_weight=-1.0"], "config.loss.box_weight is -1.0; pass 0"),
        (
            [*arguments, "--config.detections.max_detections=0"],
            "config.detections.max_detections is 0; pass at least 1",
        ),
        ([*arguments, "--config.data.flip=up"], "unknown flip 'up'"),
        ([*arguments, "--config.data.eval=test"], "unknown split of "),
        ([*arguments, "--config.data.path=nowhere"], "nowhere is not a folder; pass the one that"),
        ([*arguments, "--config.data.image_size=0"], "config.data.image_size is 0; pass at least"),
        ([*arguments, "--config.model.min_scale=0.9"], "min_scale is 0.9, max_scale 0.5; pass 0 <"),
        ([*arguments, "--config.data.max_boxes=1"], "has 2 boxes; evaluation needs all of them"),
        ([*arguments, "--config.data.categories=('ring',)"], "unknown category of "),
        ([*arguments, "--config.label_smoothing=0.1"], "unknown key 'label_smoothing'"),
    ):
        assert words in refused("train", *given, workdir)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").glob("checkpoints/*"))
    assert "only classification can be analysed" in refused("analyze", f"--workdir={detector}")
    line = refused("convert", f"--from-static={detector}", workdir)
    assert "the network has router_14, router_15" in line
