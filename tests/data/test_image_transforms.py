import numpy as np
import pytest
from PIL import Image

from condconv_jax import data


def ramp(height, width):
    """A picture whose pixels tell where they are: row, column, and never 0 in blue."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 9)], axis=-1).astype(np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("crop", data.CROPS)
@pytest.mark.parametrize("shape", [(12, 12), (9, 20), (40, 13)])
@pytest.mark.parametrize("size", [8, 12, 16])
def test_results_have_the_promised_form(train, crop, shape, size):
    transform = data.make_transforms(size, train=train, crop=crop)
    for seed in range(5):
        sample = transform({"image": ramp(*shape), "label": 3}, rng(seed))
        assert set(sample) == {"image", "label"}
        assert sample["image"].shape == (size, size, 3)
        assert sample["image"].dtype == np.uint8
        assert sample["image"].flags.c_contiguous
        assert sample["label"] == 3
        assert sample["label"].dtype == np.int32


@pytest.mark.parametrize("crop", data.CROPS)
def test_sources_are_never_written_to(crop):
    image = ramp(12, 12)
    image.flags.writeable = False
    for train in (True, False):
        data.make_transforms(12, train=train, crop=crop)({"image": image, "label": 0}, rng())


def test_random_windows_are_windows_of_the_padded_picture():
    image = ramp(10, 12)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
    step = data.PadAndRandomCrop(8, padding=3)
    windows = {padded[r : r + 8, c : c + 8].tobytes() for r in range(9) for c in range(11)}
    drawn = {step(image, rng(seed)).tobytes() for seed in range(2000)}
    assert drawn == windows  # all 99 positions, and nothing else


def test_padding_that_is_too_small_is_refused():
    with pytest.raises(
        ValueError, match=r"picture of 4x30 with 1 pixels of padding is smaller than 8"
    ):
        data.PadAndRandomCrop(8, padding=1)(ramp(4, 30), rng())


@pytest.mark.parametrize("size", [4, 5, 10, 13, 14])
def test_central_windows_are_central(size):
    image = ramp(10, 10)
    window = data.CentralWindow(size)(image, rng())
    inside = window[window[..., 2] > 0].reshape(min(size, 10), min(size, 10), 3)
    first = (10 - min(size, 10)) // 2
    np.testing.assert_array_equal(
        inside, image[first:, first:][: inside.shape[0], : inside.shape[1]]
    )
    rows = np.flatnonzero(window[..., 2].any(axis=1))
    assert abs(rows[0] - (size - 1 - rows[-1])) <= 1


def test_flips_are_mirror_images_half_of_the_time():
    image = ramp(4, 6)
    flips = 0
    for seed in range(400):
        result = data.RandomFlip()(image, rng(seed))
        flipped = bool(result[0, 0, 1])
        np.testing.assert_array_equal(result, image[:, ::-1] if flipped else image)
        flips += flipped
    assert 150 < flips < 250  # 5 standard deviations of a fair coin


def test_random_resized_crops_keep_area_and_ratio(monkeypatch):
    parts = []
    monkeypatch.setattr("condconv_jax.data.transforms.resized", lambda part, *_: parts.append(part))
    step = data.RandomResizedCrop(8, area=(0.2, 0.6), ratio=(0.5, 2.0))
    for seed in range(500):
        step(ramp(100, 150), rng(seed))
    heights, widths = np.array([part.shape[:2] for part in parts]).T
    area, ratio = heights * widths / (100 * 150), widths / heights
    # Sides are whole pixels, so the limits hold to half a pixel of some 40 or more.
    assert 0.195 < area.min() < 0.22
    assert 0.55 < area.max() < 0.61
    assert 0.49 < ratio.min() < 0.55
    assert 1.8 < ratio.max() < 2.05
    for part in parts:  # a part of the picture, not a rearrangement of it
        assert np.ptp(part[..., 0]) == part.shape[0] - 1
        assert np.ptp(part[..., 1]) == part.shape[1] - 1


def test_areas_are_drawn_evenly_and_tall_parts_as_often_as_wide_ones(monkeypatch):
    shapes = []
    monkeypatch.setattr(
        "condconv_jax.data.transforms.resized", lambda part, *_: shapes.append(part.shape[:2])
    )
    # The longest side, of the square root of 0.5 * 2, is still the picture's: none is drawn anew.
    step = data.RandomResizedCrop(8, area=(0.02, 0.5), ratio=(0.5, 2.0))
    image = np.zeros((240, 240, 3), np.uint8)
    for seed in range(500):
        step(image, rng(seed))
    heights, widths = np.array(shapes, float).T
    # Uniform in an interval of length d, with a standard deviation of d / sqrt(12); four standard
    # errors of the mean. Rounding to whole pixels averages out.
    for drawn, lowest, highest in (
        (np.log(widths / heights), -np.log(2), np.log(2)),
        (heights * widths / 240**2, 0.02, 0.5),
    ):
        error = (highest - lowest) / np.sqrt(12 * 500)
        assert abs(drawn.mean() - (lowest + highest) / 2) < 4 * error


def test_random_resized_crop_falls_back_to_the_centre(monkeypatch):
    monkeypatch.setattr("condconv_jax.data.transforms.resized", lambda part, *_: part)
    # Nothing of the whole area fits into such a strip, so the widest allowed centre is taken.
    part = data.RandomResizedCrop(8, area=(1.0, 1.0))(ramp(30, 200), rng())
    assert part.shape[:2] == (30, 40)
    assert part[0, 0, 1] == 80
    part = data.RandomResizedCrop(8, area=(1.0, 1.0))(ramp(200, 30), rng())
    assert part.shape[:2] == (40, 30)
    assert part[0, 0, 0] == 80


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos"])
def test_central_crops_are_pillows(name):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    result = data.ResizedCentralCrop(16, fraction=0.875, interpolation=name)(image, rng())
    # 0.875 of the shorter side 40 is 35; (40 - 35 + 1) // 2 = 3, (56 - 35 + 1) // 2 = 11.
    filter = Image.Resampling[name.upper()]
    expected = Image.fromarray(image).crop((11, 3, 46, 38)).resize((16, 16), filter)
    np.testing.assert_array_equal(result, np.asarray(expected))


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos"])
def test_random_resized_crops_are_pillows(name):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    # The whole area of a square, as a square.
    step = data.RandomResizedCrop(16, area=(1.0, 1.0), ratio=(1.0, 1.0), interpolation=name)
    expected = Image.fromarray(image).resize((16, 16), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(step(image, rng()), np.asarray(expected))


@pytest.mark.parametrize("crop", ["pad", "none"])
def test_pictures_of_the_right_size_are_evaluated_unchanged(crop):
    image = ramp(12, 12)
    sample = data.make_transforms(12, train=False, crop=crop)({"image": image, "label": 0}, rng())
    np.testing.assert_array_equal(sample["image"], image)


def test_builder_arranges_the_steps():
    assert data.make_transforms(32, train=True).steps == (
        data.PadAndRandomCrop(32, 4),
        data.RandomFlip(),
    )
    assert data.make_transforms(32, train=True, flip=False, padding=2).steps == (
        data.PadAndRandomCrop(32, 2),
    )
    assert data.make_transforms(224, train=True, crop="resized", area=(0.05, 1)).steps == (
        data.RandomResizedCrop(224, (0.05, 1.0)),
        data.RandomFlip(),
    )
    options = {"crop": "resized", "ratio": (0.5, 2), "interpolation": "lanczos"}
    assert data.make_transforms(224, train=True, flip=False, **options).steps == (
        data.RandomResizedCrop(224, (0.08, 1.0), (0.5, 2.0), "lanczos"),
    )
    assert data.make_transforms(224, train=False, crop="resized").steps == (
        data.ResizedCentralCrop(224, 0.875),
    )
    assert data.make_transforms(224, train=False, crop="none", interpolation="lanczos").steps == (
        data.ResizedCentralCrop(224, 1.0, "lanczos"),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "resize"}, r"unknown crop 'resize'; .*did you mean 'resized'\?"),
        ({"interpolation": "cubic"}, r"unknown interpolation 'cubic'; .*did you mean 'bicubic'\?"),
        ({"padding": -1}, r"got padding -1; wants 0 or more pixels"),
        ({"area": (0, 1)}, r"got area \(0.0, 1.0\); wants 0 < lowest <= highest <= 1"),
        ({"area": (0.5, 0.2)}, r"got area"),
        (
            {"area": (0.08, 0.5, 1)},
            r"got area \(0.08, 0.5, 1\); wants two numbers, lowest and high",
        ),
        ({"ratio": (1,)}, r"got ratio \(1,\); wants two numbers"),
        ({"ratio": (2, 1)}, r"got ratio \(2.0, 1.0\); wants 0 < lowest <= highest"),
        ({"central_fraction": 1.5}, r"got central_fraction 1.5; wants 0 < x <= 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"make_transforms: {message}"):
        data.make_transforms(32, train=True, **options)
    with pytest.raises(ValueError, match=r"make_transforms: got image_size 0; wants at least 1"):
        data.make_transforms(0, train=True)
