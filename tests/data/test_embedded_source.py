import hashlib
import importlib.resources

import numpy as np
import pytest

from condconv_jax import data


@pytest.mark.parametrize(("split", "count"), [("train", 6000), ("test", 1500)])
def test_counts_and_balance(split, count):
    source = data.open_source("fashion_mnist", split)
    labels = np.array([sample["label"] for sample in source])
    assert len(source) == count
    assert source.num_classes == 10
    assert source.class_names[0] == "T-shirt/top"
    assert source.class_names[9] == "Ankle boot"
    np.testing.assert_array_equal(np.bincount(labels), [count // 10] * 10)
    # Every block of ten holds one of each class, so prefixes are balanced too.
    assert (np.sort(labels.reshape(-1, 10)) == np.arange(10)).all()


def test_pictures_are_grey_in_three_channels():
    sample = data.open_source("fashion_mnist", "test")[7]
    assert sample["image"].shape == (28, 28, 3)
    assert sample["image"].dtype == np.uint8
    assert isinstance(sample["label"], int)
    assert (sample["image"] == sample["image"][..., :1]).all()


def test_statistics_are_those_of_the_pictures():
    source = data.open_fashion_mnist("train")
    pixels = source.images / 255
    statistics = data.STATISTICS["fashion_mnist"]
    assert pixels.mean() == pytest.approx(statistics.mean[0], abs=5e-3)
    assert pixels.std() == pytest.approx(statistics.std[0], abs=5e-3)


def test_the_file_is_the_one_its_licence_text_names():
    folder = importlib.resources.files("condconv_jax.data") / "embedded"
    notice = (folder / "LICENSE-fashion-mnist").read_text()
    digest = hashlib.sha256((folder / "fashion_7500.npz").read_bytes()).hexdigest()
    assert digest in notice
    assert "Copyright (c) 2017 Zalando SE" in notice


def test_a_path_is_refused():
    with pytest.raises(
        ValueError, match=r"got path 'here', but these pictures are inside the pack"
    ):
        data.open_source("fashion_mnist", "train", path="here")
