"""Real pictures of all thousand classes through the pipeline that ImageNet is trained with."""

import importlib.util
import zipfile

import numpy as np
import pytest

from condconv_jax import data

INTERPOLATIONS = [
    "bicubic",
    pytest.param(
        "opencv_bilinear",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("cv2") is None, reason="the extra fast-data is not installed"
        ),
    ),
]


@pytest.fixture
def imagenet(real_data):
    return real_data / "imagenet-samples"


def transforms(interpolation="bicubic"):
    return [
        data.make_transforms(
            224,
            train=train,
            crop="resized",
            central_fraction=0.875,
            interpolation=interpolation,
        )
        for train in (True, False)
    ]


def test_labels_are_the_usual_ones(imagenet):
    source = data.open_source("folder", "train", path=str(imagenet / "val_short128.zip"))
    rows = [line.split("\t") for line in (imagenet / "classes.txt").read_text().splitlines()]
    wnids = {int(row[0]): row[1] for row in rows if row[0].isdigit()}
    assert source.class_names == tuple(wnids[label] for label in range(1000))
    assert sorted(source.labels.tolist()) == list(range(1000))
    for file, label in zip(source.files, source.labels.tolist(), strict=True):
        assert file.startswith(wnids[label] + "/")


def test_the_archive_is_the_folder(imagenet, tmp_path):
    with zipfile.ZipFile(imagenet / "originals.zip") as opened:
        opened.extractall(tmp_path)
    zipped = data.open_folder("train", path=str(imagenet / "originals.zip"))
    unzipped = data.open_folder("train", path=str(tmp_path))
    assert len(zipped) == 24
    assert zipped.files == unzipped.files
    assert zipped.class_names == unzipped.class_names
    for one, other in zip(zipped, unzipped, strict=True):
        assert one["label"] == other["label"]
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_thousand_pictures_become_batches(imagenet, interpolation):
    source = data.open_folder("train", path=str(imagenet / "val_short128.zip"))
    train, evaluate = transforms(interpolation)
    batches = data.train_batches(source, train, batch_size=32, seed=0)
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (32, 224, 224, 3)
    assert batch["image"].std(axis=(1, 2, 3)).min() > 1  # pictures, not empty arrays
    assert len(set(batch["label"].tolist())) == 32  # an epoch is a permutation, one of each class
    some = data.SubsetSource(source, 0, 100, "some")
    labels, count = [], 0
    for batch in data.eval_batches(some, evaluate, batch_size=32):
        labels += batch["label"][batch["mask"] == 1].tolist()
        count += len(batch["mask"])
    assert labels == source.labels[:100].tolist()
    assert count == 128


def test_the_originals_of_every_shape_become_crops(imagenet):
    source = data.open_folder("train", path=str(imagenet / "originals.zip"))
    train, evaluate = transforms()
    for sample in source:  # 68x121 to 1600x1200, four of them grey
        for transform in (train, evaluate):
            image = transform(sample, np.random.default_rng(0))["image"]
            assert image.shape == (224, 224, 3)


def test_central_crops_keep_what_the_picture_shows(imagenet):
    source = data.open_folder("train", path=str(imagenet / "originals.zip"))
    for sample in source:
        image = sample["image"]
        side = int(0.875 * min(image.shape[:2]))
        row, column = ((length - side + 1) // 2 for length in image.shape[:2])
        part = image[row : row + side, column : column + side].mean((0, 1))
        found = transforms()[1](sample, np.random.default_rng(0))["image"].mean((0, 1))
        # Resampling keeps the mean but for the weight of the outermost pixels and clipping.
        assert np.abs(found - part).max() < 2


def test_truncated_pictures_are_passed_over(imagenet, tmp_path):
    with zipfile.ZipFile(imagenet / "originals.zip") as opened:
        opened.extractall(tmp_path)
    whole = data.open_folder("train", path=str(tmp_path))
    for index in (3, 4, 20):
        file = tmp_path / whole.files[index]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    messages = []
    source = data.SkippingSource(whole, 3, messages.append)
    for index, taken in ((3, 5), (4, 5), (20, 21)):
        np.testing.assert_array_equal(source[index]["image"], whole[taken]["image"])
    masks = [b["mask"] for b in data.eval_batches(source, transforms()[1], batch_size=8)]
    assert np.flatnonzero(np.concatenate(masks) == 0).tolist() == [3, 4, 20]
    assert sorted(messages) == sorted(set(messages))
    assert len(messages) == 3
    with pytest.raises(ValueError, match="more than 2 damaged samples"):
        list(data.SkippingSource(whole, 2, messages.append))


def test_tiny_imagenet(real_data):
    source = data.open_source("npz", "val", path=str(real_data / "tiny-imagenet-50"))
    assert source.num_classes == 50
    train, evaluate = transforms()
    batches = data.train_batches(source, train, batch_size=16, seed=0)
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (16, 224, 224, 3)
    assert 0 <= batch["label"].min() <= batch["label"].max() < 50
    some = data.SubsetSource(source, 0, 20, "some")
    batches = list(data.eval_batches(some, evaluate, batch_size=16))
    labels = np.concatenate([batch["label"] for batch in batches])
    assert labels[:20].tolist() == [sample["label"] for sample in some]
