import importlib.util

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data import detection
from condconv_jax.data.detection import make_detection_transforms

OPENCV = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="the extra fast-data is not installed"
)


def sample(count, height=40, width=60):
    rng = np.random.default_rng(count)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1)
    return {
        "image": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "boxes": corners.reshape(count, 4).astype(np.float32),
        "labels": np.arange(count, dtype=np.int32),
        "crowd": np.arange(count) % 3 == 2,
        "area": np.arange(count, dtype=np.float32) + 1,
        "image_id": 70 + count,
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("flip", detection.FLIPS)
@pytest.mark.parametrize("count", [0, 3, 9])
def test_training_gives_fixed_shapes(count, flip):
    transform = make_detection_transforms(32, train=True, max_boxes=5, flip=flip)
    for seed in range(30):
        found = transform(sample(count), np.random.default_rng(seed))
        assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
            "image": ((32, 32, 3), np.uint8),
            "boxes": ((5, 4), np.float32),
            "labels": ((5,), np.int32),
            "crowd": ((5,), bool),
        }
        real = found["labels"] >= 0
        assert 0 < real.sum() <= count or count == 0
        assert not (np.diff(real.astype(int)) > 0).any()  # the filling comes last
        assert (found["labels"][~real] == -1).all()
        assert not found["boxes"][~real].any()
        assert not found["crowd"][~real].any()
        assert (detection.box_areas(found["boxes"][real]) > 0).all()
        np.testing.assert_array_equal(found["crowd"][real], found["labels"][real] % 3 == 2)
        assert_equal(found, transform(sample(count), np.random.default_rng(seed)))


def test_without_augmentation_training_is_evaluation():
    options = {"crop": False, "expand": 1.0, "flip": "none", "photometric": False}
    trained = make_detection_transforms(32, train=True, max_boxes=5, **options)
    evaluated = make_detection_transforms(32, train=False, max_boxes=5)
    found = trained(sample(3), np.random.default_rng(0))
    expected = evaluated(sample(3), np.random.default_rng(0))
    np.testing.assert_array_equal(found["image"], expected["image"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-7)  # float32's last bit


@pytest.mark.parametrize(
    "interpolation", ["bilinear", pytest.param("opencv_bilinear", marks=OPENCV)]
)
def test_evaluation_squashes_the_picture_and_leaves_boxes(interpolation):
    transform = make_detection_transforms(32, train=False, max_boxes=5, interpolation=interpolation)
    given = sample(3)
    found = transform(given, np.random.default_rng(0))
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        "image": ((32, 32, 3), np.uint8),
        "boxes": ((5, 4), np.float32),
        "labels": ((5,), np.int32),
        "crowd": ((5,), bool),
        "area": ((5,), np.float32),
        "image_id": ((), np.int32),
        "size": ((2,), np.int32),
    }
    expected = data.INTERPOLATIONS[interpolation](given["image"], (32, 32))
    np.testing.assert_array_equal(found["image"], expected)
    for key in ("boxes", "labels", "crowd", "area"):
        np.testing.assert_array_equal(found[key][:3], given[key])
    assert found["labels"].tolist() == [0, 1, 2, -1, -1]
    assert found["area"].tolist() == [1, 2, 3, 0, 0]
    assert found["size"].tolist() == [40, 60]
    assert found["image_id"] == 73


def test_training_takes_crowds_and_a_random_choice_of_too_many_boxes():
    transform = make_detection_transforms(
        32, train=True, max_boxes=4, crop=False, expand=1, flip="none", photometric=False
    )
    counts = np.zeros(9)
    for seed in range(450):
        labels = transform(sample(9), np.random.default_rng(seed))["labels"]
        assert (np.diff(labels) > 0).all()
        counts[labels] += 1
    crowd = sample(9)["crowd"]
    assert (counts[crowd] == 450).all()
    # One of the six others each time: 75 of 450 each, with a standard deviation of 8.
    assert crowd.sum() == 3
    assert np.abs(counts[~crowd] - 75).max() < 32


def test_evaluation_refuses_too_many_boxes():
    transform = make_detection_transforms(32, train=False, max_boxes=8)
    with pytest.raises(
        ValueError, match="image_id 79 has 9 boxes, max_boxes is 8; raise max_boxes to 9 or more"
    ):
        transform(sample(9), np.random.default_rng(0))


def test_the_colour_of_the_filling_is_kept():
    transform = make_detection_transforms(
        64, train=True, max_boxes=3, crop=False, fill=(1, 2, 3), flip="both"
    )
    filled = 0
    for seed in range(20):
        image = transform(sample(3), np.random.default_rng(seed))["image"]
        filled += (image == (1, 2, 3)).all(axis=2).mean() > 0.2
    assert filled > 3


def test_slivers_of_boxes_are_left_out():
    given = sample(2)
    given["boxes"][0] = [0.5, 0.5, 0.5, 0.75]
    transform = make_detection_transforms(32, train=True, max_boxes=3, crop=False)
    assert transform(given, np.random.default_rng(0))["labels"].tolist() == [1, -1, -1]


def test_what_the_sample_holds_is_not_changed():
    given, kept = sample(3), sample(3)
    transform = make_detection_transforms(40, train=True, max_boxes=3, flip="both")
    for seed in range(20):
        transform(given, np.random.default_rng(seed))
    assert_equal(given, kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": "vertical"}, r"unknown flip 'vertical'; choose one of 'both', 'horizontal', 'n"),
        ({"interpolation": "linear"}, r"unknown interpolation 'linear'; .* did you mean 'bilinear"),
        ({"image_size": 0}, r"got image_size 0; wants at least 1 pixel"),
        ({"max_boxes": 0}, r"got max_boxes 0; wants at least 1 box"),
        ({"expand": 0.5}, r"got expand 0.5; wants a factor of 1 or more"),
        ({"crop_scale": 0}, r"got crop_scale 0; wants more than 0, 1 at most"),
        ({"expand": float("nan")}, r"got expand nan; wants a factor of 1 or more"),
        ({"fill": (0, 0, 256)}, r"got fill \(0, 0, 256\); wants three levels of 0\.\.255"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    options = {"image_size": 32, "train": True, "max_boxes": 5} | options
    with pytest.raises(ValueError, match=f"make_detection_transforms: {message}"):
        make_detection_transforms(options.pop("image_size"), **options)
