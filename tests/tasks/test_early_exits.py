import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.models.early_exit import average_madds, leave_early
from condconv_jax.runtime import compute
from condconv_jax.tasks import Classification

LOG3, SURE = 1.0986123, 0.5514447  # cross-entropies of logits (0, 0, 0) and (1, 0, 0), label 0


class Scores(nn.Module):
    """Logits are the mean of each channel, times a parameter; a first exit knows nothing."""

    early: bool

    @nn.compact
    def __call__(self, images, *, train=False):
        scale = self.param("scale", nn.initializers.ones, (3,))
        logits = images.mean(axis=(1, 2)) * scale[None, :]
        if self.early and not self.is_initializing():
            both = jnp.stack([jnp.zeros_like(logits), logits])
            self.sow("exits", "logits", both, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return logits


class Inside(nn.Module):
    """A network that is not the outermost module."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return Scores(early=True, name="scores")(images, train=train)


def task(model, size=2, **options):
    return Classification(model, size, mean=(0.0,) * 3, std=(1.0,) * 3, **options)


RED = np.broadcast_to(np.array([255, 0, 0], np.uint8), (2, 2, 2, 3))
BATCH = {"image": RED, "label": np.zeros(2, np.int32), "mask": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("model", "want"),
    [(Scores(early=False), SURE), (Scores(early=True), LOG3 + SURE), (Inside(), LOG3 + SURE)],
)
def test_loss_is_the_sum_over_exits(model, want):
    params, state = task(model).init(jax.random.key(0))
    assert state == {}
    loss, (new_state, metrics) = task(model).loss(params, state, BATCH, jax.random.key(1))
    assert new_state == {}
    assert float(loss) == pytest.approx(want, rel=1e-6)
    assert compute(metrics) == {"loss": pytest.approx(want, rel=1e-6), "top1": 1.0}
    evaluated = compute(task(model).evaluate(params, state, BATCH).sums)
    assert evaluated == {"loss": pytest.approx(SURE, rel=1e-6), "top1": 1.0}


def test_labels_are_smoothed_at_each_exit():
    """0.3 of the mass over three classes leaves log 3 and adds 0.2 of a logit 1 to the other."""
    model = Scores(early=True)
    params, state = task(model).init(jax.random.key(0))
    loss, _ = task(model, label_smoothing=0.3).loss(params, state, BATCH, jax.random.key(1))
    assert float(loss) == pytest.approx(LOG3 + SURE + 0.2, rel=1e-6)


def test_logits_of_all_exits():
    for model, exits in ((Scores(early=False), 1), (Inside(), 2)):
        params, state = task(model).init(jax.random.key(0))
        logits = task(model).exits(params, state, RED)
        assert logits.shape == (exits, 2, 3)
        np.testing.assert_allclose(logits[-1], task(model).predict(params, state, RED))


def test_leaving_early_by_hand():
    """Four examples of two classes, by their probabilities; thresholds 0.75 and 0.65."""
    first = [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5], [0.2, 0.8]]
    second = [[0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]]
    third = [[0.0, 1.0], [1.0, 0.0], [0.8, 0.2], [1.0, 0.0]]
    logits = 3.0 + jnp.log(jnp.array([first, second, third]) + 1e-9)
    got = jax.jit(leave_early)(logits, jnp.array([0.75, 0.65]))
    np.testing.assert_array_equal(got.exit, [1, 2, 3, 1])
    np.testing.assert_array_equal(got.prediction, [0, 1, 0, 1])
    assert float(average_madds(got.exit, (10, 20, 40))) == (10 + 20 + 40 + 10) / 4


@pytest.mark.parametrize(("threshold", "want"), [(0.0, 1), (1.0, 3)])
def test_thresholds_for_all_and_for_none(threshold, want):
    # A logit of 100 makes the largest probability 1 exactly, which does not exceed 1.
    logits = jnp.zeros((3, 5, 4)).at[:, :2, 1].set(100.0)
    got = leave_early(logits, (threshold, threshold))
    np.testing.assert_array_equal(got.exit, np.full(5, want))
    np.testing.assert_array_equal(got.prediction, [1, 1, 0, 0, 0])


def test_a_network_with_one_exit_leaves_there():
    got = leave_early(jnp.array([[[0.0, 1.0], [2.0, 1.0]]]), ())
    np.testing.assert_array_equal(got.exit, [1, 1])
    np.testing.assert_array_equal(got.prediction, [1, 0])


@pytest.mark.parametrize(
    ("shape", "thresholds"), [((3, 5, 4), (0.5,) * 3), ((3, 5, 4), (0.5,)), ((5, 4), (0.5,) * 4)]
)
def test_refused_thresholds(shape, thresholds):
    with pytest.raises(ValueError, match=r"leave_early: logits are .*one for each exit but the la"):
        leave_early(jnp.zeros(shape), thresholds)


def test_refused_madds():
    with pytest.raises(ValueError, match="average_madds: madds is empty; pass those of leaving at"):
        average_madds(jnp.array([1]), ())
