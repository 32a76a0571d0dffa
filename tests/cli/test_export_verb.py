"""`condconv export` of trained networks, and `condconv predict --model`."""

import dataclasses
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from condconv_jax import data, runtime
from condconv_jax.cli import main
from condconv_jax.cli.exporting import make_metadata
from condconv_jax.cli.network import network_of
from condconv_jax.cli.predicting.from_exported import ExportedPredictor
from condconv_jax.cli.trained import load_predictor
from condconv_jax.interop import export
from condconv_jax.interop.export.verify import make_pictures
from condconv_jax.tasks.detection.nms import select_detections


@pytest.fixture(scope="module")
def classifier(trained, tmp_path_factory):
    """A trained classifier as a file."""
    path = tmp_path_factory.mktemp("exported") / "net.stablehlo"
    assert main(["export", f"--workdir={trained}", "--format=stablehlo", f"--out={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def found(detector):
    """A trained detector as a file, under its own name."""
    assert main(["export", f"--workdir={detector}", "--format=stablehlo"]) == 0
    return detector / "exported" / "ssd300_mobilenet_v1.stablehlo"


@pytest.fixture
def predict(capsys):
    def run(*arguments):
        capsys.readouterr()
        assert main(["predict", *map(str, arguments)]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, image in enumerate(make_pictures(3, 40)):
        Image.fromarray(image[: 30 + index]).save(folder / f"{index}.png")
    return folder


def test_what_is_said_and_written(trained, tmp_path, capsys):
    path = tmp_path / "net.stablehlo"
    assert main(["export", f"--workdir={trained}", "--format=stablehlo", f"--out={path}"]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith(f"{path}: mobilenet_v1, 2 experts, step 4, 10 classes, ")
    assert first.endswith("takes uint8 (b, 28, 28, 3)")
    assert second.startswith(f"run in jax {jax.__version__} at batch 1, 2 and 7: relative error ")


def test_the_metadata_says_what_a_user_needs(classifier, found, detector):
    metadata = export.read_exported(classifier).metadata
    assert metadata["class_names"][0] == "T-shirt/top"
    assert metadata["input"]["shape"] == ["b", 28, 28, 3]
    statistics = data.STATISTICS["fashion_mnist"]
    assert metadata["input"]["normalization"] == {
        "inside": True,
        "formula": "(images / 255 - mean) / std",
        "mean": list(statistics.mean),
        "std": list(statistics.std),
    }
    assert set(metadata["outputs"]) == {"logits"}
    # Nothing of the machine that it was made on.
    assert str(detector.parent) not in json.dumps(export.read_exported(found).metadata)
    assert export.read_exported(found).metadata["suppression"]["max_detections"] == 10


def test_experts_that_were_rounded_before_are_named(trained, tmp_path):
    predictor = load_predictor(trained, [])
    network = network_of(predictor.config, predictor.task, predictor.state)
    assert make_metadata(predictor, network, "bfloat16")["experts"] == "bfloat16"
    assert make_metadata(predictor, network, "float32")["experts"] == "float32"
    # Of a run of `condconv compress`.
    small = runtime.WorkDir(tmp_path)
    small.write_facts({"experts": "int8"})
    predictor = dataclasses.replace(predictor, workdir=small)
    assert make_metadata(predictor, network, "float32")["experts"] == "int8"


def test_boxes_of_a_program_are_suppressed_as_its_metadata_say(found):
    boxes = np.array([[[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.38], [0.5, 0.5, 1, 1]]], np.float32)
    scores = np.array([[[0.9, 0.0], [0.8, 0.0], [0.0, 0.3]]], np.float32)
    exported = export.read_exported(found)
    exported = dataclasses.replace(
        exported, run=lambda images: {"boxes": boxes, "scores": scores}, one_by_one=False
    )
    suppression = exported.metadata["suppression"]
    for changes, kept in (
        ({"score_threshold": 0.1, "iou_threshold": 0.5}, [0.9, 0.3]),
        ({"score_threshold": 0.1, "iou_threshold": 0.99}, [0.9, 0.8, 0.3]),
        ({"score_threshold": 0.5, "iou_threshold": 0.5}, [0.9]),
    ):
        metadata = {**exported.metadata, "suppression": {**suppression, **changes}}
        predictor = ExportedPredictor(dataclasses.replace(exported, metadata=metadata))
        found_boxes = predictor(np.zeros((1, 48, 48, 3), np.uint8))
        assert found_boxes.labels.shape == (1, suppression["max_detections"])
        np.testing.assert_allclose(found_boxes.scores[found_boxes.labels >= 0], kept)


def test_a_detector_has_a_free_batch(found, detector):
    predictor = load_predictor(detector, [])
    images = make_pictures(3, 48, seed=1)
    exported = export.read_exported(found)
    got = exported.run(images)
    boxes, scores = jnp.asarray(got["boxes"]), jnp.asarray(got["scores"])
    chosen = select_detections(boxes, scores, **exported.metadata["suppression"])
    wanted = jax.jit(predictor.task.detect)(*predictor.state.to_evaluate(), images)
    np.testing.assert_array_equal(chosen.labels, wanted.labels)
    # In shares of the picture and of 1; the network's own rounding is some 1e-7.
    np.testing.assert_allclose(chosen.boxes, wanted.boxes, atol=1e-5)
    np.testing.assert_allclose(chosen.scores, wanted.scores, atol=1e-5)


@pytest.mark.parametrize(("run", "file"), [("trained", "classifier"), ("detector", "found")])
def test_predict_takes_the_file_like_the_run(run, file, request, predict, pictures):
    from_run = predict(f"--workdir={request.getfixturevalue(run)}", "--json", pictures)
    from_file = predict(f"--model={request.getfixturevalue(file)}", "--json", pictures)
    assert len(from_file) == 3
    for got, wanted in zip(from_file, from_run, strict=True):
        assert got["file"] == wanted["file"]
        key = "classes" if run == "trained" else "objects"
        assert [row["name"] for row in got[key]] == [row["name"] for row in wanted[key]]
        value = "probability" if run == "trained" else "score"
        np.testing.assert_allclose(
            [row[value] for row in got[key]], [row[value] for row in wanted[key]], atol=1e-5
        )


def test_rounded_experts_take_fewer_bytes(trained, classifier, tmp_path):
    path = tmp_path / "small.stablehlo"
    arguments = ["export", f"--workdir={trained}", "--format=stablehlo", f"--out={path}"]
    assert main([*arguments, "--experts=int8"]) == 0
    assert path.stat().st_size < 0.8 * classifier.stat().st_size
    assert export.read_exported(path).metadata["experts"] == "int8"


def test_what_is_refused(trained, classifier, tmp_path, refused, monkeypatch):
    verb = ["export", f"--workdir={trained}"]
    line = refused(*verb, "--format=stablehlo", f"--out={tmp_path}/net.onnx")
    assert "a stablehlo file ends in .stablehlo" in line
    line = refused(*verb, "--format=stablehlo", "--config.model.method=reference")
    assert "layer layer_14/depthwise cannot be written as stablehlo" in line
    assert "no exported program" in refused("predict", "--model=none.onnx", str(classifier))
    (tmp_path / "net.txt").write_text("")
    assert "suffix '.txt'" in refused("predict", f"--model={tmp_path}/net.txt", str(classifier))
    broken = tmp_path / "broken.stablehlo"
    broken.write_bytes(classifier.read_bytes()[:1000])
    line = refused("predict", f"--model={broken}", str(classifier))
    assert "not an exported StableHLO program" in line
    with zipfile.ZipFile(broken, "w") as file:
        file.writestr("metadata.json", "{}")
    assert "not an exported" in refused("predict", f"--model={broken}", str(classifier))
    with zipfile.ZipFile(broken, "a") as file:
        file.writestr("program.jax_export", b"another program")
    line = refused("predict", f"--model={broken}", str(classifier))
    assert "cannot read the program in it" in line
    assert "export it again" in line
    model = f"--model={classifier}"
    assert "--best is of --workdir" in refused("predict", model, "--best", str(classifier))
    line = refused("predict", model, "--config.model.method=auto", str(classifier))
    assert "a --model has no config" in line
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(*verb, "--format=onnx")
    assert "onnx needs jax2onnx and onnxruntime; `make export-env`" in line
