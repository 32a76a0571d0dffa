import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from condconv_jax.tasks.detection import focal_loss, hard_negative_loss, smooth_l1


def test_smooth_l1_by_hand():
    codes = jnp.array([[0.5, -2.0, 0.0, 1.0], [0, 0, 0, 0]])
    # 0.25 / 2, 2 - 1/2, 0, and 1/2 on either side of the seam.
    np.testing.assert_allclose(smooth_l1(codes, jnp.zeros((2, 4))), [0.125 + 1.5 + 0.5, 0])


def test_focal_loss_by_hand():
    p = np.array([0.9, 0.2])
    logits = jnp.log(p / (1 - p))[None]
    # The first class is the anchor's: -0.75 * 0.1^2 log 0.9; of the other -0.25 * 0.2^2 log 0.8.
    expected = -0.75 * 0.01 * np.log(0.9) - 0.25 * 0.04 * np.log(0.8)
    np.testing.assert_allclose(focal_loss(logits, jnp.array([0])), [expected], rtol=1e-5)
    # Of an empty anchor both classes are others.
    expected = -0.25 * (0.81 * np.log(0.1) + 0.04 * np.log(0.8))
    np.testing.assert_allclose(focal_loss(logits, jnp.array([-1])), [expected], rtol=1e-5)


def test_focal_loss_without_focus_is_cross_entropy():
    logits = jax.random.normal(jax.random.key(0), (3, 7, 4)) * 3
    labels = jax.random.randint(jax.random.key(1), (3, 7), -1, 4)
    wanted = np.asarray(jax.nn.one_hot(labels, 4))
    p = np.asarray(jax.nn.sigmoid(logits))
    plain = -(wanted * np.log(p) + (1 - wanted) * np.log1p(-p)).sum(axis=-1)
    got = focal_loss(logits, labels, alpha=0.5, gamma=0.0)
    # log(1 - p) loses digits where p is near 1.
    np.testing.assert_allclose(got, plain / 2, rtol=1e-4)


@pytest.mark.parametrize("labels", [[0, 1, -1]])
def test_gradients(labels):
    logits = jnp.array([[0.3, -1.2], [2.0, 0.1], [-0.5, 0.4]])
    labels = jnp.array(labels)
    # Float32 differences.
    focal = jax.jit(lambda x: focal_loss(x, labels).sum())
    check_grads(focal, (logits,), 1, ["rev"], rtol=2e-2)
    wide = jnp.concatenate([jnp.zeros((3, 1)), logits], axis=1)[None]
    counts = jnp.full((1, 3), True)
    hard = jax.jit(lambda x: hard_negative_loss(x, labels[None], counts).sum())
    check_grads(hard, (wide,), 1, ["rev"], rtol=2e-2)


def test_extreme_logits_have_finite_losses_and_gradients():
    for scale in (1e4, -1e4):
        logits = jnp.full((1, 2, 3), scale)
        for loss in (
            lambda x: focal_loss(x[..., 1:], jnp.array([[0, -1]])).sum(),
            lambda x: hard_negative_loss(x, jnp.array([[0, -1]]), jnp.full((1, 2), True)).sum(),
        ):
            value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()


def losses_of(background, labels, counts=None):
    """Losses of anchors with one class and these background logits, the class' being 0."""
    background = jnp.array([background], jnp.float32)
    logits = jnp.stack([background, jnp.zeros_like(background)], axis=-1)
    labels = jnp.array([labels])
    counts = jnp.full(labels.shape, True) if counts is None else jnp.array([counts])
    return np.asarray(jax.jit(hard_negative_loss)(logits, labels, counts))[0]


def test_three_hard_negatives_for_each_positive():
    # Of empty anchors the loss falls as the background's logit rises.
    background = [0.0, 1.0, 5.0, -2.0, 3.0, 0.5, 4.0]
    got = losses_of(background, [0, -1, -1, -1, -1, -1, -1])
    # log(1 + e^b) of the positive, log(1 + e^-b) of the negatives -2, 0.5 and 1.
    expected = np.zeros(7)
    expected[0] = np.log(2)
    for index in (3, 5, 1):
        expected[index] = np.log1p(np.exp(-background[index]))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_pictures_without_boxes_still_teach_and_ignored_anchors_do_not():
    got = losses_of([0.0, 1.0, 2.0, 3.0, 4.0], [-1] * 5)
    assert (got > 0).tolist() == [True, True, True, False, False]
    got = losses_of([0.0, 1.0, 2.0, 3.0, 4.0], [-1] * 5, [False, True, True, True, True])
    assert (got > 0).tolist() == [False, True, True, True, False]


def test_mining_is_of_each_picture():
    logits = jax.random.normal(jax.random.key(0), (2, 9, 3))
    labels = jnp.array([[0, *[-1] * 8], [1, 0, *[-1] * 7]])
    counts = jnp.full(labels.shape, True)
    loss = jax.jit(hard_negative_loss)
    both = loss(logits, labels, counts)
    assert (both > 0).sum(axis=1).tolist() == [4, 8]
    for index in range(2):
        one = slice(index, index + 1)
        alone = loss(logits[one], labels[one], counts[one])
        np.testing.assert_allclose(both[one], alone, rtol=1e-6)
