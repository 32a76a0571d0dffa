"""The verbs on a detector: train, go on, evaluate, start from a classifier."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
from detection_data import write_detection_data

from condconv_jax import runtime
from condconv_jax.cli import main


@pytest.fixture
def arguments(detector_arguments):
    """Arguments of a run of 4 steps."""
    return list(detector_arguments)


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


@pytest.mark.slow  # as a classifier's run does
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
    options += ["--config.model.width=0.125"]
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


def test_pictures_of_crowds_alone_cannot_be_evaluated(arguments, tmp_path, refused):
    root = write_detection_data(tmp_path / "crowds", {"train": 8, "val": 1})
    content = json.loads((root / "instances_val.json").read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    (root / "instances_val.json").write_text(json.dumps(content))
    workdir = f"--workdir={tmp_path / 'run'}"
    line = refused("train", *arguments, f"--config.data.path={root}", workdir)
    assert "config.data.eval: " in line
    assert "has no object (other than crowds), and so no precision; evaluate on pictures" in line
    assert not (tmp_path / "run" / "checkpoints").exists()


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
