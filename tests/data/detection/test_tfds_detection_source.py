import sys

import numpy as np
import pytest
import tfds_builders

from condconv_jax import data
from condconv_jax.data import detection

PLACE = "tiny_scenes/1.0.0"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    array_record, tfrecord = folder / "array_record", folder / "tfrecord"
    tfds_builders.TinyScenes(
        data_dir=array_record, file_format="array_record"
    ).download_and_prepare()
    lengths = {"train": (3, 5), "test": (1,), "strange": (3,)}
    tfds_builders.write_tfrecord(array_record / PLACE, tfrecord / PLACE, lengths)
    return {"array_record": array_record, "tfrecord": tfrecord}


def opened(prepared, split="train", fmt="array_record", **options):
    path = str(prepared[fmt])
    return detection.open_detection_source(
        "tfds", split, path=path, dataset="tiny_scenes", **options
    )


@pytest.mark.parametrize("fmt", ["array_record", "tfrecord"])
@pytest.mark.parametrize("key", ["objects", "bare"])
def test_both_formats_hold_what_was_prepared(prepared, fmt, key):
    source = opened(prepared, fmt=fmt, objects_key=key)
    assert source.name == "tiny_scenes/1.0.0 train"
    assert source.class_names == tfds_builders.NAMES
    assert sorted(sample["image_id"] for sample in source) == list(range(100, 108))
    for sample in source:
        number = sample["image_id"] - 100
        boxes, labels, crowd, area = tfds_builders.scattered(number)
        if key == "bare":
            crowd = np.zeros(len(boxes), bool)
            # Of pictures of 6 x 5 pixels.
            area = np.prod((boxes[:, 2:].astype(float) - boxes[:, :2]) * [6, 5], axis=1)
        np.testing.assert_array_equal(sample["image"], tfds_builders.picture(number))
        np.testing.assert_array_equal(sample["boxes"], boxes)
        np.testing.assert_array_equal(sample["labels"], labels)
        np.testing.assert_array_equal(sample["crowd"], crowd)
        np.testing.assert_allclose(sample["area"], area, rtol=1e-6)  # float32's last bit
        types = [sample[key].dtype for key in ("boxes", "labels", "crowd", "area")]
        assert types == [np.float32, np.int32, bool, np.float32]
    assert "tensorflow" not in sys.modules


def test_flat_boxes_are_left_out(prepared):
    (sample,) = opened(prepared, "test")
    assert len(tfds_builders.scattered(9)[0]) == 1
    assert sample["boxes"].shape == (0, 4)


def test_it_batches_and_slices_like_any_source(prepared):
    source = opened(prepared, "train[:50%]+train[50%:]", fmt="tfrecord")
    transform = detection.make_detection_transforms(8, train=True, max_boxes=3)
    batch = next(data.train_batches(source, transform, batch_size=8, seed=0))
    assert batch["boxes"].shape == (8, 3, 4)
    transform = detection.make_detection_transforms(8, train=False, max_boxes=3)
    (batch,) = data.eval_batches(source, transform, batch_size=8)
    assert sorted(batch["image_id"]) == list(range(100, 108))
    assert (batch["labels"] >= 0).sum() == 2 * (0 + 1 + 2 + 3)


class Records:
    """A record that differs from an intact one, as often as asked for."""

    def __init__(self, **changes):
        self.record = {
            "image": tfds_builders.picture(0),
            "image/id": 5,
            "objects": {"bbox": [np.array([0, 0, 1, 1], np.float32)], "label": [0]},
        }
        for key, value in changes.items():
            part = self.record if key in self.record else self.record["objects"]
            part[key] = value

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.record


def reading(has_ids=True, **changes):
    records = Records(**changes)
    return detection.TfdsDetectionSource(
        records, "image", "objects", has_ids, tfds_builders.NAMES, "strange"
    )[2]


def test_values_that_cannot_be():
    assert reading()["image_id"] == 5
    assert reading(has_ids=False)["image_id"] == 2
    with pytest.raises(
        ValueError, match=r"object 0 of sample 2 of strange has label -1; wants 0\.\.2; prepare"
    ):
        reading(label=[-1])
    for value in (np.nan, 1.5, -0.25):
        with pytest.raises(ValueError, match=rf"has bbox \[0\.0, {value}, 1\.0.*; wants shares 0"):
            reading(bbox=[np.array([0, value, 1, 1], np.float32)])
    with pytest.raises(
        ValueError, match=r"sample 2 of strange has image/id 2147483648; wants one that fits int32"
    ):
        reading(**{"image/id": 2**31})


def test_unknown_splits_and_features(prepared):
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            opened(prepared, **options)

    refused(r"open_tfds_detection: unknown split of .* 'trian'; .*mean 'train'", split="trian")
    refused(r"open_tfds_detection: unknown image feature of .* 'imag'", image_key="imag")
    refused(r"unknown objects feature of .* 'object'; .*mean 'objects'\?", objects_key="object")
    refused(r"'label' of .* is no sequence of features; wants a seq", objects_key="label")
    refused(r"'boxes' of .* is no sequence of features; wants a seq", objects_key="boxes")
    refused(r"'numbers' of .* has no label that is a ClassLabel; wants", objects_key="numbers")
    with pytest.raises(FileNotFoundError, match=r"open_tfds_detection: 'tiny_scene' is not prep"):
        detection.open_tfds_detection("train", path=str(prepared["tfrecord"]), dataset="tiny_scene")
