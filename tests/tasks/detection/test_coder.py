"""Codes of boxes: by hand, there and back, and without infinities."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condconv_jax.tasks.detection import decode, encode

ANCHOR = [0.25, 0.25, 0.75, 0.75]  # centre (1/2, 1/2), size (1/2, 1/2)

# A centre, and a size from a pixel of 300 to the whole picture.
CENTRE = st.floats(0, 1, width=32)
SIZE = st.floats(1 / 256, 1, width=32)
BOX = st.tuples(CENTRE, CENTRE, SIZE, SIZE).map(
    lambda c: [c[0] - c[2] / 2, c[1] - c[3] / 2, c[0] + c[2] / 2, c[1] + c[3] / 2]
)


@pytest.mark.parametrize(
    ("box", "code"),
    [
        (ANCHOR, [0, 0, 0, 0]),
        # Half an anchor's height down, a quarter of its width to the left.
        ([0.5, 0.125, 1.0, 0.625], [5, -2.5, 0, 0]),
        # Twice as high and half as wide, about the same centre.
        ([0.0, 0.375, 1.0, 0.625], [0, 0, 5 * np.log(2), -5 * np.log(2)]),
        # Its upper left quarter: the centre a quarter up and left, the sizes halved.
        ([0.25, 0.25, 0.5, 0.5], [-2.5, -2.5, -5 * np.log(2), -5 * np.log(2)]),
    ],
)
def test_codes_by_hand(box, code):
    # The logarithm and exponential are good to a few units in the last place of float32.
    np.testing.assert_allclose(encode(jnp.array([box]), jnp.array([ANCHOR])), [code], rtol=1e-6)
    np.testing.assert_allclose(
        decode(jnp.array([code], jnp.float32), jnp.array([ANCHOR])), [box], atol=1e-6
    )


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(BOX, BOX), min_size=5, max_size=5))
def test_there_and_back(pairs):
    boxes, anchors = jnp.array([b for b, _ in pairs]), jnp.array([a for _, a in pairs])
    back = decode(encode(boxes, anchors), anchors)
    # Sides are sums of centre and size, each below 2 and good to a few of float32's 1e-7; a size
    # goes through a logarithm of up to 6.
    np.testing.assert_allclose(back, boxes, atol=5e-6)


def test_leading_axes_and_shared_anchors():
    anchors = jnp.array([ANCHOR, [0.0, 0.0, 0.25, 0.5]])
    boxes = jnp.stack([anchors, anchors[::-1]])
    codes = encode(boxes, anchors[None])
    assert codes.shape == (2, 2, 4)
    np.testing.assert_array_equal(codes[0], np.zeros((2, 4)))
    np.testing.assert_allclose(decode(codes, anchors[None]), boxes, atol=1e-6)


@pytest.mark.parametrize(
    "box", [[0.5, 0.5, 0.5, 0.5], [0.0, 0.5, 1.0, 0.5], [0.75, 0.75, 0.25, 0.25], [0.0] * 4]
)
def test_boxes_of_no_size_have_finite_codes(box):
    box, anchor = jnp.array([box]), jnp.array([ANCHOR])
    assert jnp.isfinite(encode(box, anchor)).all()
    assert jnp.isfinite(encode(anchor, box)).all()


def test_sizes_do_not_overflow():
    codes = jnp.array([[0.0, 0.0, 1e6, 1e6], [0.0, 0.0, -1e6, -1e6]])
    boxes = decode(codes, jnp.array([ANCHOR]))
    assert jnp.isfinite(boxes).all()
    heights = boxes[:, 2] - boxes[:, 0]
    np.testing.assert_allclose(heights, [0.5 * np.exp(10), 0], rtol=1e-6)
