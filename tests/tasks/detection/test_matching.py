import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax.tasks.detection import match_anchors

# Quarters of the picture, and a narrow one in the first of them.
QUARTERS = [[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5], [0.5, 0.5, 1, 1]]
NARROW = [0, 0, 0.5, 0.25]
ANCHORS = jnp.array([*QUARTERS, NARROW])


def match(boxes, present=None, crowd=None):
    boxes = jnp.array(boxes, jnp.float32).reshape(1, -1, 4)
    n = boxes.shape[1]
    flags = [
        jnp.array([given], bool) if given is not None else jnp.full((1, n), default)
        for given, default in ((present, True), (crowd, False))
    ]
    found = jax.jit(match_anchors)(ANCHORS, boxes, *flags)
    return found.box_index[0].tolist(), found.in_loss[0].tolist()


def test_anchors_take_what_they_overlap_by_half():
    # The narrow anchor is half of the first quarter: 0.5 is enough.
    assert match([QUARTERS[0]]) == ([0, -1, -1, -1, 0], [True] * 5)
    # 0.5 * 0.49 of 0.5 * 0.5 is less than half for the narrow one: 0.25 / 0.49.
    assert match([[0, 0, 0.5, 0.51]])[0] == [0, -1, -1, -1, -1]


def test_of_two_boxes_the_one_that_overlaps_more():
    boxes = [[0, 0, 0.5, 0.4], [0, 0, 0.5, 0.5]]
    # The quarter is the best anchor of both: 0.4 / 0.5 against 1. The narrow one is nobody's best,
    # and overlaps the first by 0.25 / 0.4, the second by 0.25 / 0.5.
    assert match(boxes)[0] == [1, -1, -1, -1, 0]


def test_every_box_is_found_by_its_best_anchor_however_little_they_overlap():
    tiny = [0.9, 0.9, 0.95, 0.95]
    assert match([tiny])[0] == [-1, -1, -1, 0, -1]
    # Of two boxes with the same best anchor, the one that overlaps it more; of equals the first.
    assert match([tiny, [0.5, 0.5, 1, 0.9]])[0] == [-1, -1, -1, 1, -1]
    assert match([QUARTERS[3], QUARTERS[3]])[0] == [-1, -1, -1, 0, -1]


def test_filling_boxes_of_no_size_and_no_boxes():
    assert match([QUARTERS[1], QUARTERS[2]], present=[True, False])[0] == [-1, 0, -1, -1, -1]
    assert match([[0.2, 0.2, 0.2, 0.2]]) == ([-1] * 5, [True] * 5)
    assert match([[0, 0, 0, 0]], present=[False]) == ([-1] * 5, [True] * 5)


def test_crowds_are_found_by_nobody_and_what_lies_in_them_does_not_count():
    whole_left = [0, 0, 1, 0.5]
    box, counts = match([whole_left, QUARTERS[0]], crowd=[True, False])
    assert box == [1, -1, -1, -1, 1]
    # The third quarter lies in the crowd and finds nothing; the first and the narrow one find.
    assert counts == [True, True, False, True, True]
    # Half of an anchor's area is enough, less is not.
    assert match([[0, 0, 0.25, 0.5]], crowd=[True])[1] == [False, True, True, True, False]
    assert match([[0, 0, 0.24, 0.5]], crowd=[True])[1] == [True] * 5


def test_pictures_are_matched_one_by_one():
    boxes = jnp.array([[QUARTERS[0]], [QUARTERS[3]]])
    flags = jnp.full((2, 1), True), jnp.full((2, 1), False)
    found = jax.jit(match_anchors)(ANCHORS, boxes, *flags)
    np.testing.assert_array_equal(found.box_index, [[0, -1, -1, -1, 0], [-1, -1, -1, 0, -1]])
