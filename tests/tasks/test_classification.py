import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.nn import CondConv, CondDense
from condconv_jax.runtime import compute
from condconv_jax.tasks import Classification
from condconv_jax.tasks.classification import _in_top


class Scores(nn.Module):
    """Logits are the mean of each channel, times a parameter, so that losses can be worked out."""

    @nn.compact
    def __call__(self, images, *, train=False):
        scale = self.param("scale", nn.initializers.ones, (3,))
        return images.mean(axis=(1, 2)) * scale[None, :]


def task(**options):
    return Classification(Scores(), 2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), **options)


def images(*rows):
    """Constant images whose normalised channels are the rows, in 255ths."""
    return np.broadcast_to(np.array(rows, np.uint8)[:, None, None, :], (len(rows), 2, 2, 3))


def test_loss_by_hand():
    """Logits (1, 0, 0), label 0: -log(e / (e + 2)) = 0.5514; label 1: log(e + 2) = 1.5514."""
    params, state = task().init(jax.random.key(0))
    batch = {"image": images((255, 0, 0), (255, 0, 0)), "label": np.array([0, 1], np.int32)}
    loss, (_, metrics) = task().loss(params, state, batch, jax.random.key(1))
    assert float(loss) == pytest.approx((0.5514447 + 1.5514447) / 2, rel=1e-5)
    assert compute(metrics) == {"loss": pytest.approx(float(loss)), "top1": 0.5}


def test_label_smoothing_by_hand():
    """0.3 of the mass over three classes: 0.8 on the label, 0.1 on each other."""
    params, state = task().init(jax.random.key(0))
    batch = {"image": images((255, 0, 0)), "label": np.array([0], np.int32)}
    loss, _ = task(label_smoothing=0.3).loss(params, state, batch, jax.random.key(1))
    assert float(loss) == pytest.approx(0.8 * 0.5514447 + 0.2 * 1.5514447, rel=1e-5)


def test_evaluation_leaves_padding_out_and_does_not_smooth():
    params, state = task().init(jax.random.key(0))
    batch = {
        "image": images((255, 0, 0), (255, 0, 0), (0, 0, 255)),
        "label": np.array([0, 1, 0], np.int32),
        "mask": np.array([1, 1, 0], np.float32),
    }
    sums = task(label_smoothing=0.5).evaluate(params, state, batch).sums
    assert int(sums["loss"].count) == 2
    assert compute(sums)["loss"] == pytest.approx((0.5514447 + 1.5514447) / 2, rel=1e-5)
    assert compute(sums)["top1"] == 0.5
    assert "top5" not in sums  # of three classes


def test_ties_and_nan_are_not_right():
    logits = jnp.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0]])
    labels = jnp.array([0, 0, 0])
    np.testing.assert_array_equal(_in_top(logits, labels, 1), [False, True, False])
    np.testing.assert_array_equal(_in_top(logits, labels, 2), [True, True, False])


def test_top5_of_more_than_five_classes():
    logits = jnp.arange(10.0)[None, :].repeat(2, axis=0)
    np.testing.assert_array_equal(_in_top(logits, jnp.array([5, 4]), 5), [True, False])


def test_images_are_normalised():
    params, state = task().init(jax.random.key(0))
    normalising = Classification(Scores(), 2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5))
    logits = normalising.predict(params, state, images((255, 255, 0)))
    np.testing.assert_allclose(logits, [[1.0, 2.0, -1.0]], rtol=1e-6)


class Small(nn.Module):
    """One of each: CondConv, batch norm, dropout, classifier."""

    num_experts: int

    @nn.compact
    def __call__(self, images, *, train=False):
        x = CondConv(4, (3, 3), self.num_experts, name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=(1, 2)))
        return CondDense(4, self.num_experts, name="classifier")(x)


def small(num_experts):
    return Classification(Small(num_experts), 6, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_dropout_follows_its_key_and_batch_norm_moves():
    params, state = jax.jit(small(2).init)(jax.random.key(0))
    batch = {
        "image": np.random.default_rng(0).integers(0, 255, (4, 6, 6, 3), np.uint8),
        "label": np.arange(4, dtype=np.int32),
    }
    loss = jax.jit(small(2).loss)
    one, (moved, _) = loss(params, state, batch, jax.random.key(1))
    same, _ = loss(params, state, batch, jax.random.key(1))
    other, _ = loss(params, state, batch, jax.random.key(2))
    assert float(one) == float(same) != float(other)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    assert not np.allclose(state["batch_stats"]["bn"]["mean"], moved["batch_stats"]["bn"]["mean"])


def test_routing_by_module():
    image = jnp.zeros((2, 6, 6, 3), jnp.uint8)
    params, state = jax.jit(small(3).init)(jax.random.key(0))
    routing = jax.jit(small(3).routing)(params, state, image)
    assert set(routing) == {"conv", "classifier"}
    assert routing["conv"]["weights"].shape == (2, 3)
    params, state = jax.jit(small(0).init)(jax.random.key(0))
    assert jax.jit(small(0).routing)(params, state, image) == {}
