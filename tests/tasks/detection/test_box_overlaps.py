"""Areas and overlaps of boxes: by hand, and what holds for all boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condconv_jax.data import detection
from condconv_jax.tasks.detection import areas, boxes, clip

# Compiled as a whole, as they are used, and quicker than operation by operation.
pairwise_iou, pairwise_coverage = jax.jit(boxes.pairwise_iou), jax.jit(boxes.pairwise_coverage)

WHOLE = [0.0, 0.0, 1.0, 1.0]
TOP = [0.0, 0.0, 0.5, 1.0]
LEFT = [0.0, 0.0, 1.0, 0.5]
POINT = [0.25, 0.25, 0.25, 0.25]
LINE = [0.0, 0.25, 1.0, 0.25]
TURNED = [0.75, 0.75, 0.25, 0.25]
APART = [0.5, 0.5, 1.0, 1.0]

# Sixteenths: their areas and intersections are exact in float32.
SIDES = st.integers(0, 16).map(lambda n: n / 16)
# Always as many, or every example would be compiled anew.
BOXES = st.lists(st.lists(SIDES, min_size=4, max_size=4), min_size=5, max_size=5)


def test_areas():
    some = jnp.array([[WHOLE, TOP, [0.0, 0.0, 0.25, 0.5]], [POINT, LINE, TURNED]])
    np.testing.assert_array_equal(areas(some), [[1, 0.5, 0.125], [0, 0, 0]])


@pytest.mark.parametrize(
    ("a", "b", "iou", "coverage"),
    [
        (WHOLE, WHOLE, 1, 1),
        (TOP, WHOLE, 1 / 2, 1),
        (WHOLE, TOP, 1 / 2, 1 / 2),
        # A quarter of the picture is shared; together they are 1/2 + 1/2 - 1/4.
        (TOP, LEFT, 1 / 3, 1 / 2),
        # Sharing no more than a corner or an edge is sharing nothing.
        (APART, [0.0, 0.0, 0.5, 0.5], 0, 0),
        (APART, TOP, 0, 0),
        (APART, [0.0, 0.0, 0.25, 0.25], 0, 0),
    ],
)
def test_overlaps_by_hand(a, b, iou, coverage):
    a, b = jnp.array([a]), jnp.array([b])
    # One division, correctly rounded to float32.
    np.testing.assert_array_equal(pairwise_iou(a, b), [[np.float32(iou)]])
    np.testing.assert_array_equal(pairwise_coverage(a, b), [[np.float32(coverage)]])


@pytest.mark.parametrize("nothing", [POINT, LINE, TURNED])
def test_a_box_of_no_size_overlaps_nothing_not_even_itself(nothing):
    nothing, others = jnp.array([nothing]), jnp.array([nothing, WHOLE])
    for overlap in (pairwise_iou, pairwise_coverage):
        np.testing.assert_array_equal(overlap(nothing, others), [[0, 0]])
        np.testing.assert_array_equal(overlap(others, nothing), [[0], [0]])


@settings(deadline=None, max_examples=20)
@given(BOXES, BOXES)
def test_identities_of_overlaps(a, b):
    a, b = jnp.array(a), jnp.array(b)
    iou = pairwise_iou(a, b)
    np.testing.assert_array_equal(iou, pairwise_iou(b, a).T)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_array_equal(jnp.diag(pairwise_iou(a, a)), areas(a) > 0)
    # intersection = coverage * area = IoU * union, for two roundings each of numbers up to 2.
    shared = pairwise_coverage(a, b) * areas(a)[:, None]
    union = areas(a)[:, None] + areas(b)[None] - shared
    np.testing.assert_allclose(iou * union, shared, atol=1e-6)


def test_leading_axes():
    rng = np.random.default_rng(0)
    a, b = jnp.array(rng.uniform(size=(2, 3, 5, 4))), jnp.array(rng.uniform(size=(2, 3, 7, 4)))
    for overlap in (pairwise_iou, pairwise_coverage):
        np.testing.assert_array_equal(overlap(a, b)[1, 2], overlap(a[1, 2], b[1, 2]))
        np.testing.assert_array_equal(overlap(a[:1], b)[1, 2], overlap(a[0, 2], b[1, 2]))


def test_clip():
    some = jnp.array([[-0.5, 0.25, 0.5, 1.5], [1.25, 0.0, 1.5, 1.0], TOP])
    np.testing.assert_array_equal(clip(some), [[0, 0.25, 0.5, 1], [1, 0, 1, 1], TOP])
    assert areas(clip(some))[1] == 0


def test_the_same_as_in_numpy():
    """`data.detection` has its own, on pictures' threads; neither may drift."""
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-0.2, 1.2, (n, 4)).astype(np.float32) for n in (40, 50))
    # Corners in any order: about three quarters have no size.
    np.testing.assert_allclose(areas(a), detection.box_areas(a), rtol=1e-6)
    np.testing.assert_allclose(pairwise_iou(a, b), detection.box_overlap(a, b), rtol=1e-5)
