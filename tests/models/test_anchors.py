import numpy as np
import pytest

from condconv_jax import models
from condconv_jax.models.anchors import anchors_per_cell, make_anchors

# SSD300's maps: 19, 10, 5, 3, 2 and 1 cells a side.
SIDES = (19, 10, 5, 3, 2, 1)
SIZES = [(side, side) for side in SIDES]


def centre_and_size(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def test_as_many_as_ssd300_has():
    anchors = make_anchors(SIZES)
    # Liu et al. have 38x38 too; on MobileNetV1 it is 3 * 361 + 6 * (100 + 25 + 9 + 4 + 1) = 1917.
    assert anchors.shape == (1917, 4)
    assert anchors.dtype == np.float32
    assert anchors_per_cell(6) == (3, 6, 6, 6, 6, 6)


def test_the_first_cell_and_the_last_by_hand():
    anchors = make_anchors(SIZES)
    centres, sizes = centre_and_size(anchors)
    np.testing.assert_allclose(centres[:3], np.full((3, 2), 0.5 / 19), atol=1e-7)
    # Scale 0.2: a square of half of it, then twice as wide as high, then the other way round.
    low, high = 0.2 / np.sqrt(2), 0.2 * np.sqrt(2)
    np.testing.assert_allclose(sizes[:3], [[0.1, 0.1], [low, high], [high, low]], atol=1e-7)
    # The last map has one cell of scale 0.95 = 0.2 + 0.75, whose extra square is sqrt(0.95 * 1).
    np.testing.assert_allclose(centres[-6:], np.full((6, 2), 0.5), atol=1e-7)
    ratios = sizes[-6:, 1] / sizes[-6:, 0]
    np.testing.assert_allclose(ratios, [1, 2, 1 / 2, 3, 1 / 3, 1], rtol=1e-5)
    areas = np.sqrt(sizes[-6:].prod(axis=1))
    np.testing.assert_allclose(areas, [0.95] * 5 + [np.sqrt(0.95)], rtol=1e-6)


def test_columns_run_before_rows():
    centres, _ = centre_and_size(make_anchors([(2, 3), (1, 1)]))
    y, x = centres[: 6 * 3 : 3].T
    np.testing.assert_allclose(y, [0.25] * 3 + [0.75] * 3)
    np.testing.assert_allclose(x, [1 / 6, 0.5, 5 / 6] * 2, rtol=1e-6)


def test_scales_are_evenly_spaced():
    anchors = make_anchors(SIZES, min_scale=0.1, max_scale=0.6)
    _, sizes = centre_and_size(anchors)
    counts = [n * side**2 for n, side in zip(anchors_per_cell(6), SIDES, strict=True)]
    firsts = np.cumsum([0, *counts[:-1]])
    # The first map's first anchor is of half its scale.
    np.testing.assert_allclose(sizes[firsts, 0], [0.05, 0.2, 0.3, 0.4, 0.5, 0.6], rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "scales", "words"),
    [
        (SIZES[:1], {}, "make_anchors: 1 feature maps; pass at least 2"),
        (SIZES, {"min_scale": 0.0}, "min_scale is 0.0, max_scale 0.95; pass 0 < min_scale"),
        (SIZES, {"min_scale": 0.9, "max_scale": 0.5}, "min_scale is 0.9, max_scale 0.5"),
    ],
)
def test_refusals(sizes, scales, words):
    with pytest.raises(ValueError, match=words):
        make_anchors(sizes, **scales)


def test_of_a_network_and_pictures_of_another_shape():
    model = models.create("ssd300_mobilenet_v1", min_scale=0.1)
    np.testing.assert_array_equal(model.anchors(300), make_anchors(SIZES, min_scale=0.1))
    # 200 x 300 pixels: 13 x 19 cells after a stride of 16, ...
    heights = (13, 7, 4, 2, 1, 1)
    np.testing.assert_array_equal(
        model.anchors((200, 300)),
        make_anchors(list(zip(heights, SIDES, strict=True)), min_scale=0.1),
    )
