"""A line of text, white on black and grey at its edges, on a red picture."""

import numpy as np
import pytest

from condconv_jax.analysis import draw_caption

RED = (128, 10, 10)


def plain(height, width):
    return np.full((height, width, 3), RED, np.uint8)


def strip(picture):
    """The rows that hold nothing of the picture."""
    return picture[(picture != RED).any(axis=2).all(axis=1)]


@pytest.mark.parametrize(("height", "width"), [(240, 320), (480, 640), (200, 1000), (1000, 200)])
def test_a_strip_along_the_bottom(height, width):
    image = plain(height, width)
    picture = draw_caption(image, "Ankle boot", "0.98")
    assert (image == RED).all()
    assert (picture.dtype, picture.shape) == (np.uint8, image.shape)
    high = len(strip(picture))
    assert (picture[:-high] == RED).all()
    assert 15 <= high <= max(20, height / 8)
    # Letters of white, on black that is most of the strip.
    assert (strip(picture) == 255).all(axis=2).sum() > 50
    assert (strip(picture) == 0).all(axis=2).mean() > 0.5


@pytest.mark.parametrize(("side", "factor"), [(28, 6), (64, 3), (159, 2), (160, 1)])
def test_small_pictures_are_enlarged(side, factor):
    picture = draw_caption(plain(side, side), "Ankle boot", "0.98")
    assert picture.shape == (side * factor, side * factor, 3)


def test_a_pixel_becomes_a_block():
    image = np.random.default_rng(0).integers(1, 255, (80, 80, 3), dtype=np.uint8)
    picture = draw_caption(image, "Bag")
    np.testing.assert_array_equal(picture[:100:2, ::2], image[:50])
    np.testing.assert_array_equal(picture[1:100:2, 1::2], image[:50])


def test_a_long_text_is_cut_and_its_number_stays():
    name = "great white shark, white shark, man-eater"
    cut = draw_caption(plain(200, 200), name, "0.98")
    # The same letters as far as they go, and other ones at the end for another number.
    other = draw_caption(plain(200, 200), name, "0.11")
    differs = (cut != other).any(axis=(0, 2))
    assert not differs[:140].any()
    assert differs[140:].any()
    # One more letter beyond the cut changes nothing.
    np.testing.assert_array_equal(cut, draw_caption(plain(200, 200), name + "s", "0.98"))
    assert (strip(cut)[:, -2:] == 0).all()


def test_the_size_does_not_depend_on_the_text():
    sizes = {draw_caption(plain(50, 90), "x" * n, "1.00").shape for n in (0, 1, 10, 100)}
    assert sizes == {(100, 180, 3)}


@pytest.mark.parametrize("shape", [(5000, 1), (1, 5000), (1, 1)])
def test_lines_and_dots(shape):
    picture = draw_caption(plain(*shape), "Bag", "0.5")
    assert max(picture.shape) <= 5000


def test_what_is_no_picture():
    for image in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3))):
        with pytest.raises(ValueError, match=r"draw_caption: image is .*; pass uint8 \(h, w, 3\)"):
            draw_caption(image, "Bag")
