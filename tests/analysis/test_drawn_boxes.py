"""Boxes drawn on a grey picture, on which every other colour was drawn."""

import numpy as np
import pytest

from condconv_jax.analysis import class_color, draw_boxes

NAMES = ["cat", "dog", "cow"]
GREY, WHITE, BLACK = (128, 128, 128), (255, 255, 255), (0, 0, 0)
MIDDLE = [0.4, 0.3, 0.7, 0.6]


def grey(height=200, width=300):
    return np.full((height, width, 3), 128, np.uint8)


def draw(boxes, labels, scores=None, image=None, **options):
    boxes, labels = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, int)
    scores = None if scores is None else np.array(scores, np.float32)
    image = grey() if image is None else image
    return draw_boxes(image, boxes, labels, scores, **{"class_names": NAMES, **options})


def count(picture, *colors):
    """How many pixels have one of the colours."""
    return sum(int((picture == color).all(axis=-1).sum()) for color in colors)


def smooth_pixels(picture, *labels):
    """How many pixels are of no plain colour: those at the edges of letters."""
    plain = (GREY, WHITE, BLACK, *(class_color(label) for label in labels))
    return picture[..., 0].size - count(picture, *plain)


def test_a_box_is_drawn_on_a_copy():
    image = grey()
    picture = draw([MIDDLE], [1], image=image)
    assert (picture.dtype, picture.shape) == (np.uint8, image.shape)
    assert (image == 128).all()
    picture[:] = 0  # and can be drawn on
    picture = draw([MIDDLE], [1], image=image)
    # Rows 80 to 139 of 200, columns 90 to 179 of 300; lines of two pixels with an edge outside.
    np.testing.assert_array_equal(
        picture[80:82, 90:180], np.broadcast_to(class_color(1), (2, 90, 3))
    )
    np.testing.assert_array_equal(
        picture[80:140, 178:180], np.broadcast_to(class_color(1), (60, 2, 3))
    )
    np.testing.assert_array_equal(picture[140, 90:180], np.broadcast_to(BLACK, (90, 3)))
    assert count(picture[82:138, 92:178], GREY) == 56 * 86
    assert count(picture, GREY) < count(image, GREY)


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 0.1, 0.1],
        [0, 0.9, 0.1, 1],
        [0.9, 0, 1, 0.1],
        [0.9, 0.9, 1, 1],
        [0, 0, 1, 1],
        [0.999, 0.999, 1, 1],
        [-3, -3, 3, 3],
    ],
)
def test_the_text_is_inside_the_picture(box):
    whole = smooth_pixels(draw([MIDDLE], [0], [0.87]), 0)
    assert whole > 50
    assert smooth_pixels(draw([box], [0], [0.87]), 0) == whole


def test_texts_keep_off_one_another():
    one = smooth_pixels(draw([MIDDLE], [0], [0.5]), 0)
    assert smooth_pixels(draw([MIDDLE] * 4, [0] * 4, [0.5] * 4), 0) == 4 * one


def test_text_larger_than_the_picture():
    picture = draw([[0, 0, 1, 1]], [0], [0.5], image=grey(8, 9), class_names=["a long name"])
    assert picture.shape == (8, 9, 3)


def test_scores_are_written_and_order_the_boxes():
    plain, scored = draw([MIDDLE], [0]), draw([MIDDLE], [0], [0.87])
    assert smooth_pixels(scored, 0) > smooth_pixels(plain, 0)
    for first, second, top in [(0.9, 0.2, 0), (0.2, 0.9, 1)]:
        picture = draw([MIDDLE] * 2, [0, 1], [first, second])
        assert tuple(picture[110, 91]) == class_color(top)
    # Without scores it is the smaller one that shows where lines cross.
    picture = draw([[0.1, 0.3, 0.9, 0.6], MIDDLE], [0, 1])
    assert tuple(picture[110, 91]) == class_color(1)


def test_what_is_not_there_is_not_drawn():
    nowhere = [[0.5, 0.2, 0.5, 0.8], [0.6, 0.6, 0.4, 0.4], [0, 0, 0, 0], [np.nan] * 4, [2, 2, 3, 3]]
    picture = draw(
        [MIDDLE, *nowhere], [-1, 0, 0, 0, 0, 0], [0.5] * 6, truth_boxes=np.array(nowhere)
    )
    np.testing.assert_array_equal(picture, grey())
    np.testing.assert_array_equal(draw([], []), grey())


def test_true_boxes_are_dashed_and_have_no_text():
    truth = np.array([MIDDLE])
    picture = draw([], [], truth_boxes=truth)
    line = picture[80, 90:180]
    assert count(line, WHITE) + count(line, BLACK) == 90
    assert min(count(line, WHITE), count(line, BLACK)) > 30
    assert smooth_pixels(picture) == 0
    picture = draw([], [], truth_boxes=truth, truth_labels=np.array([2]))
    assert count(picture[80, 90:180], class_color(2)) > 30
    # Under the detection of the same place.
    picture = draw([MIDDLE], [0], truth_boxes=truth)
    assert count(picture[80, 90:180], class_color(0)) == 90


def test_lines_and_letters_grow_with_the_picture():
    small, large = draw([MIDDLE], [0]), draw([MIDDLE], [0], image=grey(2000, 3000))
    lines = [count(p[p.shape[0] // 2], class_color(0)) for p in (small, large)]
    assert lines == [2 * 2, 2 * 8]
    # Letters of 67 pixels instead of 10 have edges that much longer.
    assert smooth_pixels(large, 0) > 5 * smooth_pixels(small, 0)


def luminance(color):
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(color) / 255
    ]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def test_letters_can_be_read_on_every_color():
    assert len({class_color(label) for label in range(35)}) == 35
    assert class_color(35) == class_color(0)
    for label in range(35):
        picture = draw([MIDDLE], [label], class_names=["name"] * 35)
        ink = [color for color in (WHITE, BLACK) if count(picture, color)]
        assert len(ink) == 1
        light, dark = sorted([luminance(ink[0]), luminance(class_color(label))], reverse=True)
        # WCAG's least contrast of text.
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_wrong_calls():
    box, label = np.array([MIDDLE]), np.array([0])
    with pytest.raises(
        ValueError, match=r"image is float32 \(200, 300, 3\); pass uint8 \(h, w, 3\)"
    ):
        draw([MIDDLE], [0], image=grey().astype(np.float32))
    with pytest.raises(ValueError, match=r"image is uint8 \(200, 300\); pass"):
        draw([MIDDLE], [0], image=grey()[..., 0])
    with pytest.raises(ValueError, match=r"boxes are \(1, 4\) and labels \(2,\); pass \(n, 4\)"):
        draw([MIDDLE], [0, 1])
    with pytest.raises(ValueError, match=r"scores are \(2,\), labels \(1,\); pass one score per"):
        draw([MIDDLE], [0], [0.5, 0.6])
    with pytest.raises(ValueError, match="3 class_names, and label 3; pass one name per label"):
        draw([MIDDLE], [3])
    with pytest.raises(ValueError, match=r"truth_boxes are \(1, 4\) and truth_labels \(2,\)"):
        draw_boxes(grey(), box, label, class_names=NAMES, truth_boxes=box, truth_labels=np.zeros(2))
