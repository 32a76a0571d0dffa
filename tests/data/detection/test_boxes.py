import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condconv_jax.data import detection
from condconv_jax.data.detection.boxes import centres_inside, has_inside

sides = st.tuples(st.integers(0, 20), st.integers(1, 20))
box_lists = st.lists(st.tuples(sides, sides), min_size=1, max_size=5).map(
    lambda rows: np.array([[t, left, t + h, left + w] for (t, h), (left, w) in rows], float)
)


@given(box_lists, box_lists)
def test_overlap_is_that_of_the_pixels(first, second):
    def pixels(boxes):
        rows, columns = np.mgrid[:40, :40]
        top, left, bottom, right = boxes.T[:, :, np.newaxis, np.newaxis]
        return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)

    one, other = pixels(first)[:, np.newaxis], pixels(second)
    expected = (one & other).sum((2, 3)) / (one | other).sum((2, 3))
    np.testing.assert_allclose(detection.box_overlap(first, second), expected, rtol=1e-12)
    np.testing.assert_array_equal(detection.box_areas(first), pixels(first).sum((1, 2)))
    cut = detection.clip_boxes(first, second[0])
    np.testing.assert_array_equal(detection.box_areas(cut), (one[:, 0] & other[0]).sum((1, 2)))
    np.testing.assert_array_equal(has_inside(cut), detection.box_areas(cut) > 0)


def test_boxes_without_an_inside():
    line, box = np.array([[1.0, 1, 1, 5]]), np.array([[0.0, 0, 2, 2]])
    assert detection.box_overlap(line, box) == 0
    assert detection.box_overlap(line, line) == 0
    assert detection.box_overlap(box, np.zeros((0, 4))).shape == (1, 0)
    assert not has_inside(line).any()


@pytest.mark.parametrize(("top", "inside"), [(-2, False), (-1, False), (0, True), (2, False)])
def test_a_centre_on_the_edge_is_outside(top, inside):
    window = np.array([[0.0, 0, 3, 3]])
    assert centres_inside(np.array([[top, 0, top + 2, 2]]), window) == inside
