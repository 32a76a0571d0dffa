"""Non-maximum suppression: equal to plain loops in NumPy, and on a mesh to one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from condconv_jax.tasks.detection import Detections, select_detections


def overlap(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    area_a = max(a[2] - a[0], 0) * max(a[3] - a[1], 0)
    area_b = max(b[2] - b[0], 0) * max(b[3] - b[1], 0)
    return shared / (area_a + area_b - shared) if shared > 0 else 0.0


def select_by_loops(
    boxes,
    scores,
    *,
    iou_threshold=0.6,
    score_threshold=1e-8,
    max_per_class=100,
    max_detections=100,
):
    """All of every class' survivors first, then the best of them: no thought to speed."""
    found = []
    for own, by_class in zip(boxes, scores, strict=True):
        survivors = []
        for label in range(by_class.shape[1]):
            of_class = by_class[:, label]
            kept = []
            for anchor in sorted(range(len(own)), key=lambda i: (-of_class[i], i)):
                if of_class[anchor] <= score_threshold or len(kept) == max_per_class:
                    break
                if all(overlap(own[anchor], own[other]) <= iou_threshold for other in kept):
                    kept.append(anchor)
            survivors += [(-of_class[anchor], label, anchor) for anchor in kept]
        best = sorted(survivors)[:max_detections]
        none = max_detections - len(best)
        found.append(
            (
                [own[anchor] for _, _, anchor in best] + [np.zeros(4)] * none,
                [-score for score, _, _ in best] + [0] * none,
                [label for _, label, _ in best] + [-1] * none,
            )
        )
    return Detections(*(np.array(part) for part in zip(*found, strict=True)))


def assert_as_by_loops(boxes, scores, **options):
    got = jax.jit(lambda b, s: select_detections(b, s, **options))(boxes, scores)
    want = select_by_loops(np.asarray(boxes), np.asarray(scores), **options)
    for name in Detections._fields:
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    assert got.labels.dtype == jnp.int32
    return got


def random_boxes(rng, b, a, steps=None):
    """Boxes that overlap much; with sides in multiples of 1/steps there are equal ones."""
    centres, sizes = rng.uniform(0.2, 0.8, (b, a, 2)), rng.uniform(0.1, 0.6, (b, a, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    if steps:
        boxes = np.round(boxes * steps) / steps
    return boxes.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_random_boxes(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=(3, 60, 4)).astype(np.float32)
    assert_as_by_loops(random_boxes(rng, 3, 60), scores, iou_threshold=0.4)


@pytest.mark.parametrize("seed", range(3))
def test_equal_scores_and_equal_boxes(seed):
    rng = np.random.default_rng(seed)
    # Five scores, the lowest of them at the threshold, for 60 anchors on a grid of eighths.
    scores = (rng.integers(0, 5, (3, 60, 3)) / 4).astype(np.float32)
    options = {"score_threshold": 0.0, "iou_threshold": 0.5, "max_detections": 20}
    assert_as_by_loops(random_boxes(rng, 3, 60, steps=8), scores, **options)


@pytest.mark.parametrize("max_per_class", [1, 3])
def test_few_of_each_class(max_per_class):
    rng = np.random.default_rng(5)
    scores = rng.uniform(size=(2, 40, 3)).astype(np.float32)
    got = assert_as_by_loops(
        random_boxes(rng, 2, 40), scores, max_per_class=max_per_class, max_detections=15
    )
    for labels in np.asarray(got.labels):
        assert np.bincount(labels[labels >= 0], minlength=3).tolist() == [max_per_class] * 3


def test_boxes_of_no_size():
    rng = np.random.default_rng(6)
    boxes = random_boxes(rng, 2, 30, steps=8)
    boxes[:, ::3, 2] = boxes[:, ::3, 0]
    boxes[:, 1::5] = boxes[:, 1::5][..., [2, 3, 0, 1]]
    scores = rng.uniform(size=(2, 30, 2)).astype(np.float32)
    assert_as_by_loops(boxes, scores, iou_threshold=0.3)
    # Each stands, once, beside its equals.
    points = np.full((1, 3, 4), 0.5, np.float32)
    scores = np.array([[[0.2], [0.9], [0.2]]], np.float32)
    got = assert_as_by_loops(points, scores, max_detections=5)
    assert got.labels.tolist() == [[0, 0, 0, -1, -1]]


def test_suppression_by_hand():
    # The second box is 3/4 of the first, the third half of it, the last apart from all.
    boxes = [[0, 0, 0.5, 0.5], [0, 0, 0.375, 0.5], [0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]]
    boxes = jnp.array([boxes], jnp.float32)
    scores = jnp.array([[[0.9, 0.0], [0.8, 0.8], [0.7, 0.1], [0.1, 0.9]]])
    got = select_detections(boxes, scores, max_detections=8)
    # In the first class the second box falls to the first, and the third stands. In the other the
    # second stands, and the third, which is 2/3 of it, falls.
    assert got.labels[0].tolist() == [0, 1, 1, 0, 0, -1, -1, -1]
    np.testing.assert_array_equal(
        got.scores[0], np.array([0.9, 0.9, 0.8, 0.7, 0.1, 0, 0, 0], np.float32)
    )
    np.testing.assert_array_equal(got.boxes[0, :5], boxes[0, jnp.array([0, 3, 1, 2, 3])])
    np.testing.assert_array_equal(got.boxes[0, 5:], 0)


def test_nothing_above_the_threshold():
    boxes = jnp.array([[[0.0, 0.0, 1.0, 1.0]] * 3] * 2)
    scores = jnp.array([[[0.1], [jnp.nan], [-jnp.inf]], [[0.5], [jnp.nan], [0.6]]])
    got = select_detections(boxes, scores, score_threshold=0.5, max_detections=2)
    assert got.labels.tolist() == [[-1, -1], [0, -1]]
    assert got.scores.tolist() == [[0, 0], [np.float32(0.6), 0]]


def test_narrow_arrays_are_compared_in_float32():
    rng = np.random.default_rng(8)
    boxes = jnp.bfloat16(random_boxes(rng, 2, 40))
    scores = jnp.bfloat16(rng.uniform(size=(2, 40, 3)))
    got = select_detections(boxes, scores)
    want = select_detections(boxes.astype(jnp.float32), scores.astype(jnp.float32))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
        assert g.dtype == w.dtype


def test_no_gradient():
    boxes = jnp.array(random_boxes(np.random.default_rng(0), 1, 4))
    gradient = jax.grad(lambda b: select_detections(b, jnp.ones((1, 4, 1))).boxes.sum())(boxes)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_every_device_selects_in_its_own_pictures(axis_type):
    rng = np.random.default_rng(7)
    arrays = random_boxes(rng, 16, 30), rng.uniform(size=(16, 30, 3)).astype(np.float32)
    select = jax.jit(lambda b, s: select_detections(b, s, max_detections=10))
    want = select(*arrays)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, split) for a in arrays]
        program = select.lower(*placed).compile().as_text()
        assert not re.findall(r"all-gather|all-to-all|all-reduce|collective-permute", program)
        got = select(*placed)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(jax.device_get(g), w)
        assert g.sharding.is_equivalent_to(split, g.ndim)


def test_wrong_calls():
    boxes, scores = jnp.zeros((2, 5, 4)), jnp.zeros((2, 5, 3))
    with pytest.raises(ValueError, match=r"boxes are \(2, 5, 4\) and scores \(2, 6, 3\); pass"):
        select_detections(boxes, jnp.zeros((2, 6, 3)))
    with pytest.raises(ValueError, match=r"boxes are \(5, 4\).*one box and k scores per anchor"):
        select_detections(boxes[0], scores)
    with pytest.raises(ValueError, match="at least one anchor and one class"):
        select_detections(boxes, scores[..., :0])
    with pytest.raises(ValueError, match="iou_threshold is 60; pass an overlap, 0 to 1"):
        select_detections(boxes, scores, iou_threshold=60)
    with pytest.raises(ValueError, match="max_per_class is 0; pass 1 or more"):
        select_detections(boxes, scores, max_per_class=0)
    with pytest.raises(ValueError, match="max_detections is -1; pass 1 or more"):
        select_detections(boxes, scores, max_detections=-1)
