import numpy as np
import pytest

from condconv_jax.data import detection
from condconv_jax.data.detection import PhotometricDistortion, recoloured


def noise(height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def one_colour(*colour):
    return np.full((1, 1, 3), colour, np.uint8)


def test_nothing_changes_nothing():
    np.testing.assert_array_equal(recoloured(noise()), noise())


def test_brightness_and_contrast_are_exact():
    image = noise()
    for brightness, contrast in ((10.0, 1.0), (-20.5, 1.0), (0.0, 1.5), (32.0, 0.5)):
        found = recoloured(image, brightness=brightness, contrast=contrast)
        expected = (image.astype(float) + brightness) * contrast
        # Halves are rounded either way, the product is float32.
        assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-4


def test_saturation_goes_from_the_grey_of_the_same_luma():
    image = noise()
    luma = image @ [0.299, 0.587, 0.114]
    grey = recoloured(image, saturation=0.0)
    # A rounding to whole levels, and the three decimals of the axes of colour.
    assert np.abs(grey - luma[..., np.newaxis]).max() < 0.8
    half = recoloured(image, saturation=0.5)
    assert np.abs(half - (image + luma[..., np.newaxis]) / 2).max() < 0.8


def test_hue_turns_about_the_greys():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis], 3, axis=2)
    # The axes of colour are given to three decimals, so that greys are off by less than a level.
    assert np.abs(recoloured(greys, hue=33.0).astype(int) - greys).max() <= 1
    image = noise()
    assert np.abs(recoloured(image, hue=360.0).astype(int) - image).max() <= 1
    # Within a third of the range nothing is clipped.
    middle = (image // 3 + 85).astype(np.uint8)
    back = recoloured(recoloured(middle, hue=36.0), hue=-36.0)
    assert np.abs(back.astype(int) - middle).max() <= 2  # two roundings


def test_a_positive_hue_turns_red_to_yellow_as_in_hsv():
    red, green, blue = recoloured(one_colour(160, 60, 60), hue=36.0)[0, 0].astype(int)
    assert green > 75
    assert blue < 45
    assert red > 120
    red, green, blue = recoloured(one_colour(160, 60, 60), hue=-36.0)[0, 0].astype(int)
    assert blue > 75 > green


def test_results_are_clipped():
    image = np.array([[[0, 128, 255]]], np.uint8)
    assert recoloured(image, brightness=32.0).tolist() == [[[32, 160, 255]]]
    assert recoloured(image, brightness=-32.0).tolist() == [[[0, 96, 223]]]
    assert recoloured(image, contrast=1.5).tolist() == [[[0, 192, 255]]]


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "hue"])
def test_ranges_and_frequency(kind, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "condconv_jax.data.detection.photometric.recoloured",
        lambda image, **amounts: drawn.append(amounts[kind]) or image,
    )
    middle, most = {
        "brightness": (0, 32),
        "contrast": (1, 0.5),
        "saturation": (1, 0.5),
        "hue": (0, 36),
    }[kind]
    sample = {"image": noise(), "boxes": np.zeros((0, 4), np.float32)}
    scene = detection.whole_scene(sample | {"labels": np.zeros(0), "crowd": np.zeros(0, bool)})
    for seed in range(1000):
        PhotometricDistortion()(scene, np.random.default_rng(seed))
    distances = np.array(drawn) - middle
    # Half of 1000, with a standard deviation of 16.
    assert abs(np.count_nonzero(distances) - 500) < 64
    assert -most <= distances.min() < -0.95 * most
    assert 0.95 * most < distances.max() <= most
    assert PhotometricDistortion(probability=0.0)(scene, np.random.default_rng(0)) is scene
