"""Detection as a task: its loss by hand, its evaluation, and the same on a mesh."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import models, runtime
from condconv_jax.models import Predictions
from condconv_jax.tasks import Detection
from condconv_jax.tasks.detection import encode

NAMES = ("square", "disc")
ANCHORS = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1]], np.float32)


class Given(nn.Module):
    """A network whose predictions are its parameters, the same for all pictures."""

    @nn.compact
    def __call__(self, images, *, train=False):
        codes = self.param("codes", nn.initializers.zeros, (len(ANCHORS), 4))
        logits = self.param("logits", nn.initializers.zeros, (len(ANCHORS), 3))
        b = len(images)
        return Predictions(
            jnp.broadcast_to(codes[None], (b, *codes.shape)),
            jnp.broadcast_to(logits[None], (b, *logits.shape)),
        )

    @nn.nowrap
    def anchors(self, image_size):
        return ANCHORS


def task(**options):
    return Detection(Given(), 8, (0.5,) * 3, (0.5,) * 3, NAMES, **options)


def batch(boxes, labels, crowd=None):
    """Pictures of 40 x 80 pixels with the same number of boxes, the last filled with zeros."""
    boxes, labels = np.array(boxes, np.float32), np.array(labels, np.int32)
    b, n = labels.shape
    sides = boxes[..., 2:] - boxes[..., :2]
    return {
        "image": np.zeros((b, 8, 8, 3), np.uint8),
        "boxes": boxes,
        "labels": labels,
        "crowd": np.zeros((b, n), bool) if crowd is None else np.array(crowd),
        "mask": np.ones(b, np.float32),
        "area": sides.prod(axis=-1) * 40 * 80,
        "size": np.full((b, 2), (40, 80), np.int32),
        "image_id": np.arange(b, dtype=np.int32),
    }


TWO = batch(
    [[[0, 0, 0.5, 0.4], [0, 0, 0, 0]], [[0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1]]], [[0, -1], [1, 0]]
)
KEY = jax.random.key(0)


def test_loss_by_hand():
    params, state = task(box_weight=2.0).init(KEY)
    loss, (_, metrics) = jax.jit(task(box_weight=2.0).loss)(params, state, TWO, KEY)
    # At p = 1/2 a class costs alpha_t / 4 log 2: 0.75 where it is the anchor's, else 0.25. Three of
    # six anchors have a box.
    classes = (3 * (0.75 + 0.25) + 3 * 2 * 0.25) / 4 * np.log(2) / 3
    # The first box is centred 0.05 beside its anchor of 0.5, and 0.8 times as wide.
    codes = 10 * 0.05 / 0.5, 5 * np.log(0.8)
    boxes = sum(0.5 * c**2 if abs(c) < 1 else abs(c) - 0.5 for c in codes) / 3
    sums = runtime.compute(metrics)
    assert sums["class_loss"] == pytest.approx(classes, rel=1e-5)
    assert sums["box_loss"] == pytest.approx(boxes, rel=1e-5)
    assert loss == pytest.approx(classes + 2 * boxes, rel=1e-5)
    assert sums["loss"] == pytest.approx(float(loss))
    assert sums["anchors_with_box"] == 1.5


def test_options_of_the_focal_loss_reach_it():
    one = task(focal_alpha=0.5, focal_gamma=0.0)
    params, state = one.init(KEY)
    _, (_, metrics) = jax.jit(one.loss)(params, state, TWO, KEY)
    # Half the cross-entropy of two classes at p = 1/2, of six anchors, three of which have a box.
    expected = 6 * 2 * 0.5 * np.log(2) / 3
    assert runtime.compute(metrics)["class_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("class_loss", "expected"),
    [
        # One anchor with a box and one without, as in `test_loss_by_hand`.
        ("focal", (0.75 + 0.25 + 2 * 0.25) / 4 * np.log(2)),
        # The same two; both classes and the background are as likely.
        ("hard_negative", 2 * np.log(3)),
    ],
    ids=["focal", "hard_negative"],
)
def test_anchors_in_a_crowd_have_no_loss(class_loss, expected):
    boxes = [[ANCHORS[0], ANCHORS[1]]]
    given = batch(boxes, [[0, 1]], crowd=[[False, True]])
    one = task(class_loss=class_loss)
    params, state = one.init(KEY)
    _, (_, metrics) = jax.jit(one.loss)(params, state, given, KEY)
    assert runtime.compute(metrics)["class_loss"] == pytest.approx(expected, rel=1e-5)


def test_evaluation_divides_by_picture_and_leaves_padding_out():
    padded = {name: np.concatenate([a, a[:1]]) for name, a in TWO.items()}
    padded["mask"] = np.array([1, 1, 0], np.float32)
    params, state = task().init(KEY)
    found = jax.jit(task().evaluate)(params, state, padded)
    assert found.sums["loss"].count == 2
    # (1 + 2 * 2 / 4) / 4 log 2 of the first picture, (2 + 1 / 2) / 8 log 2 of the second.
    expected = np.log(2) / 2 * ((0.75 + 0.25 + 4 * 0.25) / 4 + (2 * 1 + 2 * 0.25) / 8)
    assert runtime.compute(found.sums)["class_loss"] == pytest.approx(expected, rel=1e-5)
    assert all(len(values) == 3 for values in found.examples.values())


def perfect(task):
    """Parameters that find the two boxes of the second picture of `TWO` and nothing else."""
    _, state = task.init(KEY)
    boxes = jnp.array([[0, 0, 0.5, 0.5], *TWO["boxes"][1]])
    logits = np.full((3, 3), -9.0)
    logits[1, 1 + 1] = logits[2, 1 + 0] = 9.0
    if task.class_loss == "hard_negative":
        logits[0, 0] = 9.0
    return {"codes": encode(boxes, jnp.array(ANCHORS)), "logits": jnp.array(logits)}, state


@pytest.mark.parametrize("class_loss", ["focal", "hard_negative"])
def test_what_is_found_scores(class_loss):
    one = task(class_loss=class_loss, score_threshold=0.5)
    params, state = perfect(one)
    second = {name: values[1:] for name, values in TWO.items()}
    found = jax.jit(one.detect)(params, state, second["image"])
    assert found.labels[0].tolist()[:3] == [1, 0, -1] or found.labels[0].tolist()[:3] == [0, 1, -1]
    evaluate = jax.jit(one.evaluate)
    examples = jax.device_get(evaluate(params, state, second).examples)
    scores = one.scores(examples)
    assert scores["ap"] == pytest.approx(1.0)
    assert scores["ap50/disc"] == pytest.approx(1.0)
    assert one.best_metric in scores
    # In both pictures: the box of the first is missed, and two found that are not there.
    scores = one.scores(jax.device_get(evaluate(params, state, TWO).examples))
    assert scores["ap"] < 0.6
    # But if the first only fills the batch, nothing is missed.
    padded = TWO | {"mask": np.array([0, 1], np.float32)}
    scores = one.scores(jax.device_get(evaluate(params, state, padded).examples))
    assert scores["ap"] == pytest.approx(1.0)


@functools.cache
def find():
    """A compiled `detect`, of at most three objects."""
    return jax.jit(task(iou_threshold=0.4, max_detections=3).detect)


def found_of(boxes):
    """The squares that are found where one is seen at each anchor, the first the surest."""
    logits = jnp.array([[0.0, 9, -30], [0, 8, -30], [0, 7, -30]])
    codes = encode(jnp.array(boxes), jnp.array(ANCHORS))
    return find()({"codes": codes, "logits": logits}, {}, TWO["image"][:1])


def test_the_threshold_of_overlap_reaches_suppression():
    # With the first the second has an overlap of 0.5, the third one of 0.3.
    boxes = [[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0.7, 1, 1]]
    found = found_of(boxes)
    assert found.labels.tolist() == [[0, 0, -1]]
    # Encoded and decoded in float32.
    np.testing.assert_allclose(found.boxes[0, :2], [boxes[0], boxes[2]], atol=1e-5)


def test_boxes_end_where_the_picture_does():
    boxes = np.array([[-0.2, -0.1, 0.4, 0.4], [0.6, 0.6, 1.3, 1.1], [0.1, 0.6, 0.3, 0.9]])
    found = found_of(boxes)
    np.testing.assert_allclose(found.boxes[0], np.clip(boxes, 0, 1), atol=1e-5)
    assert np.min(found.boxes) == 0
    assert np.max(found.boxes) == 1


def test_gradients_reach_codes_and_logits_of_matched_anchors_only():
    params, state = task().init(KEY)
    gradient, _ = jax.jit(jax.grad(task().loss, has_aux=True))(params, state, TWO, KEY)
    # Anchor 1 has its box where it is; anchor 2 too.
    moved = np.abs(gradient["codes"]).sum(axis=1) > 0
    assert moved.tolist() == [True, False, False]
    # The background's logit is not trained by sigmoid losses.
    assert (np.abs(gradient["logits"]) > 0).tolist() == [[False, True, True]] * 3
    softmax = task(class_loss="hard_negative")
    gradient, _ = jax.jit(jax.grad(softmax.loss, has_aux=True))(params, state, TWO, KEY)
    assert (np.abs(gradient["logits"][1]) > 0).all()


def test_pictures_without_boxes_have_a_loss():
    empty = batch(np.zeros((2, 2, 4)), np.full((2, 2), -1))
    for class_loss in ("focal", "hard_negative"):
        one = task(class_loss=class_loss)
        params, state = one.init(KEY)
        loss, (_, metrics) = jax.jit(one.loss)(params, state, empty, KEY)
        assert np.isfinite(loss)
        assert loss > 0
        assert runtime.compute(metrics)["box_loss"] == 0


def test_unknown_losses_are_refused():
    with pytest.raises(
        ValueError, match=r"Detection: unknown class_loss 'focl'.*did you mean 'focal'"
    ):
        task(class_loss="focl")


def small_detector():
    model = models.create("ssd300_mobilenet_v1", 2, width=1 / 16, num_experts=2, begin_layer=14)
    return Detection(model, 32, (0.5,) * 3, (0.5,) * 3, NAMES, max_detections=10)


def drawn_batch(count):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(size=(2, count, 3, 2)), axis=0)
    boxes = np.concatenate([corners[0], corners[1]], axis=-1).astype(np.float32)
    made = batch(boxes, rng.integers(-1, 2, (count, 3)), rng.uniform(size=(count, 3)) < 0.2)
    return made | {"image": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)}


def test_eight_devices_are_as_good_as_one_and_gather_nothing():
    one, given = small_detector(), drawn_batch(16)
    params, state = jax.jit(one.init)(KEY)
    loss, (_, metrics) = jax.jit(one.loss)(params, state, given, KEY)
    examples = jax.jit(one.evaluate)(params, state, given).examples
    mesh = runtime.make_mesh()
    with jax.set_mesh(mesh):
        spread = runtime.put_batch(given, mesh)
        weights = jax.device_put((params, state), runtime.replicated(mesh))
        lowered = jax.jit(one.loss).lower(*weights, spread, KEY)
        compiled = lowered.compile()
        evaluation = jax.jit(one.evaluate).lower(*weights, spread).compile()
        for program in (compiled, evaluation):
            assert not re.search(r"all-gather|all-to-all|collective-permute", program.as_text())
        loss_8, (_, metrics_8) = compiled(*weights, spread, KEY)
        examples_8 = evaluation(*weights, spread).examples
    # Sums over the batch, in batch norm too, in another order.
    assert loss_8 == pytest.approx(float(loss), rel=1e-4)
    for name, value in runtime.compute(metrics).items():
        assert runtime.compute(metrics_8)[name] == pytest.approx(value, rel=1e-4)
    # In evaluation no example depends on another.
    np.testing.assert_allclose(examples_8["scores"], examples["scores"], rtol=1e-5)
    np.testing.assert_array_equal(examples_8["labels"], examples["labels"])
