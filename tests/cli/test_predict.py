"""`condconv predict` on trained networks: what is printed and drawn, against the network itself."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from predicting_fakes import Boxes, greys, needs_opencv, write_video

from condconv_jax import config as configs
from condconv_jax import data
from condconv_jax.cli import main
from condconv_jax.cli.predicting import from_workdir
from condconv_jax.cli.predicting.inputs import find_inputs
from condconv_jax.cli.trained import load_predictor
from condconv_jax.data import opencv


@functools.cache
def loaded_once(path):
    return from_workdir.WorkdirPredictor(load_predictor(path, []))


@pytest.fixture
def predict(monkeypatch, capsys):
    """Runs the verb and returns what it printed; a network is loaded and compiled once for all."""
    monkeypatch.setattr(from_workdir, "load_workdir", lambda path, *_, best: loaded_once(path))

    def run(workdir, *arguments, status=0):
        capsys.readouterr()
        assert main(["predict", f"--workdir={workdir}", *map(str, arguments)]) == status
        return capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def shapes(detector_arguments):
    """The folder of pictures of 48x64 pixels that the detector was trained and evaluated on."""
    return detector_arguments[-1].partition("=")[2]


@pytest.fixture
def noise(tmp_path):
    """Three pictures of noise, of several sizes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "noise"
    folder.mkdir()
    for name, size in (("a", (30, 28)), ("b", (28, 28)), ("c", (40, 35))):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def objects(printed):
    """The JSON objects on stdout, which must hold nothing else."""
    return [json.loads(line) for line in printed.out.splitlines()]


def test_classes_in_json_are_those_of_the_text_and_of_the_network(trained, noise, predict):
    text = predict(trained, "--top=3", noise).out.splitlines()
    found = objects(predict(trained, "--top=3", "--json", noise))
    by_hand = load_predictor(trained, [])
    weights = jax.device_put(by_hand.state.to_evaluate())
    for name, line, item in zip("abc", text, found, strict=True):
        file = str(noise / f"{name}.png")
        assert set(item) == {"file", "classes"}
        assert item["file"] == file
        rows = [(row["name"], row["probability"]) for row in item["classes"]]
        assert line == f"{file}: " + ", ".join(f"{name} {share:.3f}" for name, share in rows)
        image = configs.read_unlabelled(by_hand.config, np.asarray(Image.open(file)))
        logits = by_hand.task.predict(*weights, image[None])
        expected = jax.nn.softmax(logits[0])
        labels = [row["label"] for row in item["classes"]]
        assert labels == np.argsort(-expected)[:3].tolist()
        assert [by_hand.class_names[label] for label in labels] == [row[0] for row in rows]
        # A batch of 8 and one of 1 round differently.
        np.testing.assert_allclose([row[1] for row in rows], expected[np.array(labels)], rtol=1e-4)


@pytest.mark.slow  # trains a detector
def test_boxes_in_json_are_in_pixels_of_the_picture(detector, shapes, predict):
    # The network takes 48x48 pixels, the picture has 48x64.
    file = f"{shapes}/val/3.png"
    (item,) = objects(predict(detector, "--threshold=0.01", "--json", file))
    text = predict(detector, "--threshold=0.01", file).out
    by_hand = load_predictor(detector, [])
    weights = jax.device_put(by_hand.state.to_evaluate())
    image = np.asarray(Image.open(file))
    ready = configs.read_unlabelled(by_hand.config, image)
    assert (image.shape, ready.shape) == ((48, 64, 3), (48, 48, 3))
    boxes, scores, labels = (
        np.asarray(part[0]) for part in by_hand.task.detect(*weights, ready[None])
    )
    keep = scores >= 0.01
    assert keep.any()
    found = item["objects"]
    assert [row["label"] for row in found] == labels[keep].tolist()
    assert [row["name"] for row in found] == [by_hand.class_names[k] for k in labels[keep]]
    np.testing.assert_allclose([row["score"] for row in found], scores[keep], rtol=1e-4)
    pixels = boxes[keep].clip(0, 1) * [48, 64, 48, 64]
    np.testing.assert_allclose([row["box"] for row in found], pixels, atol=0.01)
    squares = sum(row["name"] == "square" for row in found)
    assert (f"{squares} square" in text) == bool(squares)


def test_boxes_by_hand(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(from_workdir, "load_workdir", lambda *_, best: Boxes())
    Image.fromarray(np.zeros((40, 100, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["predict", "--workdir=any", "--json", str(tmp_path / "a.png")]) == 0
    item = json.loads(capsys.readouterr().out)
    # 0.25 * 40, 0.1 * 100, 0.75 * 40, and 1.2 * 100 cut off at the edge; scores from 0.5 on.
    assert item["objects"] == [
        {"name": "dog", "label": 1, "score": 0.9, "box": [10.0, 10.0, 30.0, 100.0]},
        {"name": "cat", "label": 0, "score": 0.6, "box": [0.0, 0.0, 40.0, 100.0]},
    ]


def test_a_detector_draws_and_names_what_it_cannot_read(detector, shapes, tmp_path, predict):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = [f"{shapes}/val", f"{shapes}/train/0.png", tmp_path / "broken.png"]
    out, error = predict(detector, f"--out={tmp_path / 'drawn'}", "--threshold=0", *pictures)
    lines = out.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith(f"{shapes}/val/0.png: ")
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
        assert not np.array_equal(np.asarray(picture), Image.open(f"{shapes}/val/0.png"))
    nothing = predict(detector, "--threshold=1", f"{shapes}/val/0.png").out
    assert nothing == f"{shapes}/val/0.png: nothing\n"


def test_a_classifier_draws_its_first_class(trained, noise, tmp_path, predict):
    printed = predict(trained, "--json", f"--out={tmp_path / 'drawn'}", noise)
    assert [set(item) for item in objects(printed)] == [{"file", "classes"}] * 3
    assert printed.err.splitlines()[-1] == f"drawn: {tmp_path / 'drawn'}"
    for name, size in (("a", (168, 180)), ("b", (168, 168)), ("c", (175, 200))):
        with Image.open(tmp_path / "drawn" / f"{name}.png") as picture:
            assert picture.size == size  # enlarged, to have room for the letters


def test_it_never_looks_at_or_draws_over_its_own_pictures(
    detector, shapes, tmp_path, predict, refused
):
    shutil.copytree(f"{shapes}/val", tmp_path / "pictures")
    before = (tmp_path / "pictures" / "0.png").read_bytes()
    for pattern in (tmp_path, f"{tmp_path}/**/*.png"):
        predict(detector, pattern, f"--out={tmp_path / 'drawn'}")
        assert len(list((tmp_path / "drawn").iterdir())) == 10
    one, here = str(tmp_path / "pictures" / "0.png"), f"--out={tmp_path / 'pictures'}"
    for given in ([one], [f"--stream={one}"]):
        assert "holds " in refused("predict", f"--workdir={detector}", *given, here)
    line = refused("predict", f"--workdir={detector}", str(tmp_path / "pictures"), here)
    assert "is the folder of the pictures; pass another one" in line
    assert (tmp_path / "pictures" / "0.png").read_bytes() == before


@needs_opencv
def test_frames_of_a_video_are_predicted_like_pictures(
    detector, trained, shapes, tmp_path, predict
):
    pictures = [np.asarray(Image.open(f"{shapes}/train/{number}.png")) for number in range(10)]
    video = write_video(tmp_path / "clip.mp4", pictures, fps=12.5)
    with data.Video(video) as opened:
        for frame in opened:
            Image.fromarray(frame.image).save(tmp_path / f"{frame.number:02}.png")
    for workdir, key in ((detector, "objects"), (trained, "classes")):
        # More than a batch; the broken file between shifts nothing.
        options = ("--json", "--threshold=0.01") if key == "objects" else ("--json",)
        singles = objects(predict(workdir, *options, f"{tmp_path}/*.png"))
        frames = objects(predict(workdir, *options, video))
        assert [item["file"] for item in frames] == [str(video)] * 10
        assert [item["frame"] for item in frames] == list(range(10))
        np.testing.assert_allclose([item["seconds"] for item in frames], np.arange(10) / 12.5)
        for single, frame in zip(singles, frames, strict=True):
            assert frame[key] == single[key]
    text = predict(detector, video).out.splitlines()
    assert text[2].startswith(f"{video} frame 2 (0.160 s): ")


@needs_opencv
def test_broken_files_are_named_in_their_places(trained, noise, tmp_path, predict):
    shutil.copy(noise / "a.png", tmp_path / "z.png")
    whole = write_video(tmp_path / "whole.mp4", greys(range(0, 250, 50)))
    short = write_video(tmp_path / "short.avi", greys(range(0, 250, 10)), codec="MJPG")
    short.write_bytes(short.read_bytes()[: short.stat().st_size * 4 // 5])
    (tmp_path / "no.mp4").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "no.png").write_bytes(b"no picture")
    given = [noise / "a.png", tmp_path / "no.png", short, tmp_path / "no.mp4", whole]
    printed = predict(trained, "--json", f"--out={tmp_path / 'drawn'}", *given, tmp_path / "z.png")
    found = objects(printed)
    files = [item["file"] for item in found]
    assert list(dict.fromkeys(files)) == [*map(str, given), str(tmp_path / "z.png")]
    failed = {item["file"]: item["error"] for item in found if "error" in item}
    assert set(failed) == {str(tmp_path / "no.png"), str(short), str(tmp_path / "no.mp4")}
    frames = [item for item in found if item["file"] == str(short)]
    assert 0 < len(frames) - 1 < 25
    assert f"ends after {len(frames) - 1} of 25 frames" in frames[-1]["error"]
    assert files.count(str(whole)) == 5
    lines = printed.err.splitlines()
    for file, error in failed.items():
        assert f"{file}: {error}" in lines
    assert lines[-2] == "3 of 6 files could not be read in full"
    # What could be read of the short one is drawn, at the rate of the original.
    with data.Video(tmp_path / "drawn" / "short.mp4") as drawn:
        assert (drawn.fps, len(list(drawn))) == (10.0, len(frames) - 1)
    with data.Video(tmp_path / "drawn" / "whole.mp4") as drawn:
        assert (drawn.size, len(list(drawn))) == ((128, 192), 5)
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {
        "a.png", "short.mp4", "whole.mp4", "z.png"
    }  # fmt: skip


def test_patterns(trained, noise, tmp_path, predict, refused):
    deep = tmp_path / "noise" / "deeper" / "still"
    deep.mkdir(parents=True)
    shutil.copy(noise / "a.png", deep / "d.png")
    # A file of this very name is meant, not the pattern.
    shutil.copy(noise / "a.png", noise / "[ab].png")

    def names(*patterns):
        found = objects(predict(trained, "--json", *patterns))
        return [item["file"].removeprefix(f"{noise}/") for item in found]

    assert names(f"{noise}/**/*.png") == [
        "[ab].png",
        "a.png",
        "b.png",
        "c.png",
        "deeper/still/d.png",
    ]
    assert names(f"{noise}/[bc].png", f"{noise}/?.png") == [
        "b.png",
        "c.png",
        "a.png",
        "b.png",
        "c.png",
    ]
    assert names(f"{noise}/[ab].png") == ["[ab].png"]
    line = refused("predict", f"--workdir={trained}", f"{noise}/*.jpg")
    assert f"no file matches '{noise}/*.jpg'; pass files or folders" in line


def test_a_folder_of_sounds_is_looked_at_where_there_is_no_picture(tmp_path):
    (tmp_path / "sounds").mkdir()
    for name in ("b.wav", "a.WAV", "notes.txt"):
        (tmp_path / "sounds" / name).touch()
    assert [file.name for file in find_inputs([str(tmp_path)], None)] == ["a.WAV", "b.wav"]
    (tmp_path / "c.png").touch()
    assert [file.name for file in find_inputs([str(tmp_path)], None)] == ["c.png"]


@needs_opencv
def test_folders_have_videos_too(trained, noise, predict):
    write_video(noise / "bb.mp4", greys([0, 200]))
    found = objects(predict(trained, "--json", noise))
    assert [item["file"][-6:] for item in found] == [
        "/a.png",
        "/b.png",
        "bb.mp4",
        "bb.mp4",
        "/c.png",
    ]


def test_a_video_without_opencv(monkeypatch, trained, tmp_path, refused):
    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(opencv, "import_opencv", lambda: None)
    for given in (str(tmp_path), f"--stream={tmp_path / 'a.mp4'}", "--stream=0"):
        line = refused("predict", f"--workdir={trained}", given)
        assert "reading video needs OpenCV, which is not installed; install the extra with" in line


def test_predictions_that_cannot_be(detector, trained, tmp_path, refused):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken, workdir = str(tmp_path / "broken.png"), f"--workdir={detector}"
    (tmp_path / "empty").mkdir()
    for given, words in (
        ([workdir, "nowhere.jpg"], "no picture 'nowhere.jpg'; pass files or folders"),
        ([workdir, str(tmp_path / "empty")], "no picture in "),
        ([workdir, broken, "--threshold=2"], "--threshold is 2.0; pass a score, 0 to 1"),
        ([f"--workdir={trained}", broken, "--top=0"], "--top is 0; pass at least 1"),
        ([f"--workdir={trained}", broken, "--threshold=1"], "--threshold: a classifier has no use"),
        ([workdir, broken, "--top=2"], "--top: a detector has no use for it; leave it out"),
        ([workdir], "nothing to look at; pass pictures, videos or folders, or --stream=VIDEO"),
        ([workdir, broken, "--stream=0"], "--stream=0 and '"),
        ([workdir, broken, "--frames=5"], "--frames is of --stream; pass --stream=VIDEO"),
        ([workdir, "--stream=0", "--frames=0"], "--frames is 0; pass at least 1"),
        ([workdir, "--stream=nowhere.mp4"], "no picture 'nowhere.mp4'"),
    ):
        assert words in refused("predict", *given)


def test_threads_are_of_exported_programs_and_at_least_one(refused):
    for given in (("--workdir=run", "--threads=2"), ("--model=network.onnx", "--threads=0")):
        line = refused("predict", *given, "picture.png")
        assert "--threads is of --model, and at least 1; leave it out" in line


@needs_opencv
def test_nothing_that_can_be_read(trained, tmp_path, predict):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    error = predict(trained, tmp_path / "broken.png", status=1).err
    assert "condconv predict: none of the 1 pictures could be read" in error
    printed = predict(trained, "--json", tmp_path, status=1)
    assert [set(item) for item in objects(printed)] == [{"file", "error"}] * 2
    assert "none of the 2 files could be read" in printed.err
    printed = predict(trained, "--json", f"--stream={tmp_path / 'broken.mp4'}", status=1)
    assert [set(item) for item in objects(printed)] == [{"file", "error"}]
    assert "no frame of " in printed.err
