"""Batches and drawn files, by predictors whose results are plain to see."""

import numpy as np
import pytest
from PIL import Image
from predicting_fakes import Boxes, Greys, greys, needs_opencv

from condconv_jax import data
from condconv_jax.cli.predicting.batches import predict_all
from condconv_jax.cli.predicting.inputs import Failure, Moment, View
from condconv_jax.cli.predicting.predictions import make_select
from condconv_jax.cli.predicting.writers import DrawnWriter


def select_of(predictor, top=5, threshold=0.5):
    return make_select(predictor.kind, predictor.class_names, top=top, threshold=threshold)


def light(prediction):
    """The probability of "light", as a grey level."""
    rows = {row["name"]: row["probability"] for row in prediction.fields(1, 1)["classes"]}
    return round(255 * rows["light"])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 20])
def test_batches_are_of_one_size_and_in_order(count):
    predictor, levels = Greys(), [10 * n for n in range(count)]
    views = [View(f"{n}.png", image) for n, image in enumerate(greys(levels))]
    found = list(predict_all(predictor, views, select_of(predictor)))
    assert [view.file for view, _ in found] == [f"{n}.png" for n in range(count)]
    assert [light(prediction) for _, prediction in found] == levels
    assert predictor.shapes == [(8, 4, 4, 3)] * -(-count // 8)


def test_the_last_batch_is_not_filled_where_any_size_will_do():
    predictor = Greys(any_size=True)
    views = [View(f"{n}.png", image) for n, image in enumerate(greys(range(9)))]
    found = list(predict_all(predictor, views, select_of(predictor)))
    assert [light(prediction) for _, prediction in found] == list(range(9))
    assert predictor.shapes == [(8, 4, 4, 3), (1, 4, 4, 3)]


def test_failures_keep_their_places_and_take_none_of_a_batch():
    predictor, broken = Greys(), Failure("broken", "why")
    views = [View(f"{n}", image) for n, image in enumerate(greys(range(12)))]
    items = [broken, *views[:5], broken, broken, *views[5:], broken]
    found = list(predict_all(predictor, items, select_of(predictor)))
    assert [item if isinstance(item, Failure) else item[0] for item in found] == items
    assert [light(item[1]) for item in found if isinstance(item, tuple)] == list(range(12))
    assert len(predictor.shapes) == 2
    assert list(predict_all(predictor, [broken], select_of(predictor))) == [broken]
    assert len(predictor.shapes) == 2  # nothing to run


def test_what_is_told():
    classes = select_of(Greys(), top=1)(np.array([[0.25, 0.75]], np.float32), 0)
    assert classes.text() == "light 0.750"
    assert classes.fields(1, 1) == {"classes": [{"name": "light", "label": 1, "probability": 0.75}]}
    detector = Boxes()
    found = detector(np.zeros((1, 4, 4, 3), np.uint8))
    for threshold, text, count in (
        (0.0, "1 cat, 2 dog", 3),
        (0.7, "1 dog", 1),
        (0.95, "nothing", 0),
    ):
        prediction = select_of(detector, threshold=threshold)(found, 0)
        assert prediction.text() == text
        assert len(prediction.fields(10, 10)["objects"]) == count


@needs_opencv
def test_drawn_files(tmp_path):
    predictor = Boxes()
    writer = DrawnWriter(tmp_path / "deep" / "drawn")
    select = select_of(predictor)
    prediction = select(predictor(np.zeros((1, 4, 4, 3), np.uint8)), 0)
    image = greys([128], (48, 64))[0]
    for file in ("x/a.mp4", "y/a.mp4"):
        for number in range(3):
            writer.write(View(file, image, Moment(number, number / 5, 5.0)), prediction)
    writer.write(View("a.png", image), prediction)
    # The same video named twice, one after the other, is drawn twice.
    for number in (0, 1, 0):
        writer.write(View("b.mp4", image, Moment(number, number / 5, 5.0)), prediction)
    for number, width in enumerate((64, 64, 32)):
        wide = greys([128], (48, width))[0]
        writer.write(View("c.mp4", wide, Moment(number, number / 5, 5.0)), prediction)
    writer.close()
    writer.close()  # nothing is left to be ended
    counts = {}
    for path in sorted((tmp_path / "deep" / "drawn").glob("*.mp4")):
        with data.Video(path) as video:
            frames = list(video)
            counts[path.name] = len(frames)
            assert (video.fps, video.size) == (5.0, (48, 32 if path.name == "c_2.mp4" else 64))
            if path.name == "c_2.mp4":
                continue
            expected = prediction.drawn(image).astype(int)
            # Lines of one pixel suffer most from the codec.
            assert abs(frames[0].image - expected).mean() < 8
    assert counts == {
        "a.mp4": 3, "a_2.mp4": 3, "b.mp4": 2, "b_2.mp4": 1, "c.mp4": 2, "c_2.mp4": 1
    }  # fmt: skip
    with Image.open(tmp_path / "deep" / "drawn" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), prediction.drawn(image))


@needs_opencv
def test_a_frame_of_a_camera_stays_until_the_next(tmp_path):
    writer = DrawnWriter(tmp_path)
    select = select_of(Boxes())
    prediction = select(Boxes()(np.zeros((1, 4, 4, 3), np.uint8)), 0)
    image = greys([128])[0]
    # 5 frames/s, of which a network took every fourth, and then every one.
    for number, seconds in enumerate((0.0, 0.8, 1.6, 1.8)):
        writer.write(View("camera 0", image, Moment(number, seconds, 5.0, live=True)), prediction)
    writer.close()
    with data.Video(tmp_path / "camera 0.mp4") as video:
        assert len(list(video)) == 10  # 1.8 s, and the last frame's own 0.2
