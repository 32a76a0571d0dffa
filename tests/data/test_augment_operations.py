"""Each operation against what it does to pixels that can be followed by hand."""

import numpy as np
import pytest
from PIL import Image

from condconv_jax.data import augment

VALUES = np.arange(256, dtype=np.uint8)
RAMP = np.repeat(VALUES.reshape(16, 16, 1), 3, axis=2)
GREY = (128, 128, 128)


def apply(operation, image, *amounts):
    picture = operation(Image.fromarray(np.asarray(image, np.uint8)), *amounts)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def grey(rows):
    """A picture of grey pixels, (h, w) -> (h, w, 3)."""
    return np.repeat(np.asarray(rows, np.uint8)[..., None], 3, axis=2)


def noise(height=12, width=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_invert():
    np.testing.assert_array_equal(apply(augment.invert, RAMP), 255 - RAMP)


@pytest.mark.parametrize(
    ("bits", "mask"), [(1, 0x80), (4, 0xF0), (6, 0xFC), (8, 0xFF), (0, 0x80), (12, 0xFF)]
)
def test_posterize_keeps_the_highest_bits(bits, mask):
    np.testing.assert_array_equal(apply(augment.posterize, RAMP, bits), RAMP & mask)


@pytest.mark.parametrize("threshold", [0, 76, 128, 256, 384])
def test_solarize_inverts_from_the_threshold_on(threshold):
    expected = np.where(threshold > RAMP.astype(int), RAMP, 255 - RAMP)
    np.testing.assert_array_equal(apply(augment.solarize, RAMP, threshold), expected)


@pytest.mark.parametrize(("addition", "at_127"), [(0, 127), (33, 160), (110, 237), (165, 255)])
def test_solarize_add_lightens_what_is_dark(addition, at_127):
    result = apply(augment.solarize_add, RAMP, addition).reshape(256, 3)
    assert result[127].tolist() == [at_127] * 3
    assert result[0].tolist() == [addition] * 3
    np.testing.assert_array_equal(result[128:, 0], VALUES[128:])


def test_autocontrast_stretches_each_channel_to_its_own_ends():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, :, 0] = 50, 100, 150  # (100 - 50) * 255 / (150 - 50) = 127.5, cut to 127
    image[0, :, 1] = 0, 255, 7  # as wide as can be
    image[0, :, 2] = 9, 9, 9  # nothing to stretch
    result = apply(augment.autocontrast, image)[0]
    assert result.T.tolist() == [[0, 127, 255], [0, 255, 7], [9, 9, 9]]


def test_equalize_of_three_values():
    # 510 pixels each: a step is (1530 - 510) // 255 = 4 pixels, and a value of which n pixels are
    # darker becomes (n + 4 // 2) // 4.
    result = apply(augment.equalize, grey([[10, 20, 30]] * 510))
    assert result[0].tolist() == grey([[0, (510 + 2) // 4, (1020 + 2) // 4]])[0].tolist()


def test_equalize_leaves_what_is_equal():
    even = np.tile(RAMP, (4, 4, 1))
    np.testing.assert_array_equal(apply(augment.equalize, even), even)
    single = grey(np.full((8, 8), 77))
    np.testing.assert_array_equal(apply(augment.equalize, single), single)


def test_color_blends_with_the_grey_version():
    red = np.array([[[255, 0, 0]]])
    luma = 76  # 0.299 * 255
    assert apply(augment.color, red, 0.0)[0, 0].tolist() == [luma] * 3
    assert apply(augment.color, red, 0.5)[0, 0].tolist() == [
        (255 + luma) // 2,
        luma // 2,
        luma // 2,
    ]
    assert apply(augment.color, [[[200, 100, 100]]], 1.5)[0, 0].tolist() == [
        int(1.5 * 200 - 0.5 * 130),  # 0.299 * 200 + 0.701 * 100 = 130
        int(1.5 * 100 - 0.5 * 130),
        int(1.5 * 100 - 0.5 * 130),
    ]
    assert apply(augment.color, red, 2.0)[0, 0].tolist() == [255, 0, 0]  # clipped on both sides


def test_contrast_blends_with_the_mean_of_the_picture():
    image = grey([[0, 200]])
    assert apply(augment.contrast, image, 0.0)[0, :, 0].tolist() == [100, 100]
    assert apply(augment.contrast, image, 0.5)[0, :, 0].tolist() == [50, 150]
    assert apply(augment.contrast, image, 1.5)[0, :, 0].tolist() == [0, 250]


def test_brightness_blends_with_black():
    image = grey([[0, 100, 200]])
    assert apply(augment.brightness, image, 0.5)[0, :, 0].tolist() == [0, 50, 100]
    assert apply(augment.brightness, image, 1.5)[0, :, 0].tolist() == [0, 150, 255]


def test_sharpness_blends_with_the_smoothed_picture():
    image = np.zeros((5, 5), np.uint8)
    image[2, 2] = 130
    smooth = np.zeros((5, 5), int)
    smooth[1:4, 1:4] = 130 // 13
    smooth[2, 2] = 5 * 130 // 13
    np.testing.assert_array_equal(apply(augment.sharpness, grey(image), 0.0), grey(smooth))
    sharper = np.clip(2 * image.astype(int) - smooth, 0, 255)
    np.testing.assert_array_equal(apply(augment.sharpness, grey(image), 2.0), grey(sharper))
    border = noise()
    border[1:-1, 1:-1] = 0
    result = apply(augment.sharpness, border, 0.1)
    border[1:-1, 1:-1] = result[1:-1, 1:-1]
    np.testing.assert_array_equal(result, border)


def test_rotate_turns_counterclockwise_onto_grey():
    image = noise(12, 12)
    for turns in range(4):
        np.testing.assert_array_equal(
            apply(augment.rotate, image, 90.0 * turns), np.rot90(image, turns)
        )
    turned = apply(augment.rotate, image, 45.0)
    for corner in (turned[0, 0], turned[0, -1], turned[-1, 0], turned[-1, -1]):
        assert tuple(corner) == GREY
    np.testing.assert_array_equal(apply(augment.rotate, noise(12, 10), 0.0), noise(12, 10))


@pytest.mark.parametrize("slope", [1.0, -1.0, 0.3, -0.3])
def test_shear_moves_a_row_by_its_number(slope):
    image = noise(5, 8)  # row 5 would be the first tie, 0.3 * 5 = 1.5
    result = apply(augment.shear_x, image, slope)
    for row in range(5):
        shift = round(slope * row)
        for column in range(8):
            inside = 0 <= column + shift < 8
            expected = tuple(image[row, column + shift]) if inside else GREY
            assert tuple(result[row, column]) == expected, (row, column)
    other = apply(augment.shear_y, image.transpose(1, 0, 2), slope)
    np.testing.assert_array_equal(other, result.transpose(1, 0, 2))


@pytest.mark.parametrize("pixels", [3, -3, 2.6, -2.6])
def test_translate_moves_by_whole_pixels(pixels):
    image = noise(6, 8)
    expected = np.full_like(image, 128)
    if pixels > 0:
        expected[:, :-3] = image[:, 3:]
    else:
        expected[:, 3:] = image[:, :-3]
    np.testing.assert_array_equal(apply(augment.translate_x, image, pixels), expected)
    np.testing.assert_array_equal(
        apply(augment.translate_y, image.transpose(1, 0, 2), pixels), expected.transpose(1, 0, 2)
    )


def test_translate_out_of_sight_leaves_grey():
    assert (apply(augment.translate_y, noise(), 250.0) == 128).all()


def test_cutout_is_a_square_cut_at_the_border():
    image = noise(12, 10)
    expected = image.copy()
    expected[3:7, 2:6] = 128
    np.testing.assert_array_equal(apply(augment.cutout, image, 2, 5, 4), expected)
    expected = image.copy()
    expected[9:, :3] = 128
    np.testing.assert_array_equal(apply(augment.cutout, image, 3, 12, 0), expected)
    np.testing.assert_array_equal(apply(augment.cutout, image, 0, 5, 4), image)


OPERATIONS = augment.make_operations(translate=250.0, cutout=100.0)

# By hand from level_to_arg of the official autoaugment.py.
AMOUNTS = {
    "posterize": (0, 2, 4, 6),
    "solarize": (0, 128, 256, 384),
    "solarize_add": (0, 55, 110, 165),
    "color": (0.1, 1.0, 1.9, 2.8),
    "contrast": (0.1, 1.0, 1.9, 2.8),
    "brightness": (0.1, 1.0, 1.9, 2.8),
    "sharpness": (0.1, 1.0, 1.9, 2.8),
    "rotate": (0, 15, 30, 45),
    "shear_x": (0, 0.15, 0.3, 0.45),
    "shear_y": (0, 0.15, 0.3, 0.45),
    "translate_x": (0, 125, 250, 375),
    "translate_y": (0, 125, 250, 375),
    "cutout": (0, 50, 100, 150),
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_of_levels(name):
    amounts = [OPERATIONS[name].amount(level) for level in (0, 5, 10, 15)]
    assert amounts == pytest.approx(AMOUNTS[name], rel=1e-12)  # products of two floats


def test_amounts_are_cut_to_whole_numbers():
    found = [OPERATIONS[name].amount(3) for name in ("posterize", "solarize", "solarize_add")]
    assert found == [1, 76, 33]  # of 1.2, 76.8 and 33


def test_there_are_sixteen_operations():
    assert set(OPERATIONS) == {*AMOUNTS, "autocontrast", "equalize", "invert"}


NEUTRAL = {
    **dict.fromkeys(["rotate", "shear_x", "shear_y", "translate_x", "translate_y"], 0),
    **dict.fromkeys(["cutout", "solarize_add"], 0),
    **dict.fromkeys(["color", "contrast", "brightness", "sharpness"], 5),
    "solarize": 10,
    "posterize": 20,
}


@pytest.mark.parametrize(("name", "level"), NEUTRAL.items())
def test_levels_that_change_nothing(name, level):
    picture = Image.fromarray(noise())
    for seed in range(4):
        result = OPERATIONS[name](picture, level, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.asarray(result), noise())


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0, 3, 10, 30])
def test_pictures_keep_size_and_form_and_are_not_written_to(name, level):
    picture = Image.fromarray(noise(9, 14))
    result = OPERATIONS[name](picture, level, np.random.default_rng(0))
    assert (result.size, result.mode) == ((14, 9), "RGB")
    np.testing.assert_array_equal(np.asarray(picture), noise(9, 14))


def test_signed_operations_go_both_ways_half_of_the_time():
    signed = {name for name, operation in OPERATIONS.items() if operation.signed}
    assert signed == {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}
    rng, drawn = np.random.default_rng(0), []
    tally = augment.Operation(lambda p, amount, _: drawn.append(amount), float, signed=True)
    for _ in range(400):
        tally(None, 7, rng)
    assert set(drawn) == {7.0, -7.0}
    assert 150 < drawn.count(7.0) < 250  # 5 standard deviations of a fair coin


def test_cutout_takes_any_centre():
    picture, rng = Image.new("RGB", (4, 3)), np.random.default_rng(0)
    corners = set()
    for _ in range(500):
        found = np.argwhere(np.asarray(OPERATIONS["cutout"](picture, 0.1, rng))[..., 0] == 128)
        corners.add(tuple(found.max(axis=0)))  # pad 1: [row - 1, row + 1)
    assert corners == {(row, column) for row in range(3) for column in range(4)}
