import importlib.util

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data import resizing

needs_opencv = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="the extra fast-data is not installed"
)
OPENCV = [name for name in data.INTERPOLATIONS if name.startswith("opencv_")]


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_like_floats(found, expected):
    """OpenCV rounds weights and results to fixed point, so that a step of 255 may be off."""
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1


@needs_opencv
def test_opencv_area_is_the_mean_of_what_a_pixel_covers():
    image = picture(12, 18)
    found = resizing.resized(image, 6, "opencv_area")
    assert_like_floats(found, image.reshape(6, 2, 6, 3, 3).mean((1, 3)))


@needs_opencv
def test_opencv_bilinear_takes_the_two_nearest_at_any_scale():
    image = picture(24, 24)
    # The centre of a result's pixel i is at 4 * (i + 1/2) - 1/2 = 4 i + 1.5 of 24 pixels to 6.
    near = image[1::4].astype(float) + image[2::4]
    expected = (near[:, 1::4] + near[:, 2::4]) / 4
    assert_like_floats(resizing.resized(image, 6, "opencv_bilinear"), expected)


@needs_opencv
def test_opencv_bicubic_takes_the_four_nearest_at_any_scale():
    image = picture(24, 24)
    # Keys' kernel with a = -3/4 at the distances 3/2 and 1/2 (OpenCV's INTER_CUBIC).
    weights = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
    rows = sum(w * image[k::4].astype(float) for k, w in enumerate(weights))
    expected = sum(w * rows[:, k::4] for k, w in enumerate(weights)).clip(0, 255)
    assert_like_floats(resizing.resized(image, 6, "opencv_bicubic"), expected)


@needs_opencv
@pytest.mark.parametrize("name", OPENCV)
def test_opencv_takes_parts_of_pictures_and_leaves_its_threads_off(name):
    import cv2

    image = picture(40, 50)
    part = image[3:31, 5:38]
    expected = resizing.resized(part.copy(), 16, name)
    np.testing.assert_array_equal(resizing.resized(part, 16, name), expected)
    np.testing.assert_array_equal(resizing.resized(part[:16, :16], 16, name), part[:16, :16])
    assert cv2.getNumThreads() == 1
    for train in (True, False):
        transform = data.make_transforms(16, train=train, crop="resized", interpolation=name)
        sample = transform({"image": image, "label": 1}, np.random.default_rng(0))
        assert sample["image"].shape == (16, 16, 3)
        assert sample["image"].flags.c_contiguous


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=needs_opencv if n in OPENCV else ()) for n in data.INTERPOLATIONS],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 2), (7, 7)])
def test_pictures_of_one_colour_keep_it(name, shape):
    image = np.full((*shape, 3), (10, 128, 250), np.uint8)
    assert (resizing.resized(image, 16, name) == (10, 128, 250)).all()


@pytest.mark.parametrize("installed", [pytest.param(True, marks=needs_opencv), False])
@pytest.mark.parametrize("shape", [(1, 2), (5, 8), (8, 5)])
def test_mirrored_pictures(monkeypatch, installed, shape):
    if not installed:
        monkeypatch.setattr(resizing, "import_opencv", lambda: None)
    image = picture(*shape)
    image.flags.writeable = False
    np.testing.assert_array_equal(resizing.mirrored(image), image[:, ::-1])
    np.testing.assert_array_equal(resizing.mirrored(image[:, 1:]), image[:, :0:-1])
    np.testing.assert_array_equal(resizing.mirrored(image[..., :1]), image[:, ::-1, :1])


def test_interpolations_that_cannot_run(monkeypatch):
    with pytest.raises(ValueError, match=r"unknown interpolation 'opencv_linear'; .* did you mean"):
        data.make_transforms(8, train=True, interpolation="opencv_linear")
    monkeypatch.setattr(resizing, "import_opencv", lambda: None)
    with pytest.raises(
        ValueError, match=r"make_transforms: interpolation 'opencv_area' needs OpenCV, .*fast-data"
    ):
        data.make_transforms(8, train=True, interpolation="opencv_area")
    data.make_transforms(8, train=True, interpolation="bicubic")
