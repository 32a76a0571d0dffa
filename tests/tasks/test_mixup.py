import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_classification import images, task

from condconv_jax.runtime import make_mesh, put_batch
from condconv_jax.tasks.classification import mix_neighbours, mixup_share


def test_neighbours_are_mixed():
    x = jnp.array([[0.0, 1.0], [10.0, 3.0], [20.0, 5.0]])
    mixed = mix_neighbours(x, jnp.float32(0.75))
    np.testing.assert_allclose(mixed, [[5.0, 2.0], [7.5, 2.5], [17.5, 4.5]])


def test_shares_are_those_of_beta_and_its_mirror():
    """Beta(1, 1) is uniform: the larger of a share and its rest is uniform on 1/2 to 1."""
    shares = jax.vmap(lambda key: mixup_share(key, 1.0))(jax.random.split(jax.random.key(0), 4000))
    assert shares.min() >= 0.5
    # Mean 3/4 and deviation 1 / sqrt(48); four standard errors of 4000 draws.
    np.testing.assert_allclose(shares.mean(), 0.75, atol=4 / np.sqrt(48 * 4000))
    few = jax.vmap(lambda key: mixup_share(key, 0.2))(jax.random.split(jax.random.key(0), 4000))
    assert few.mean() > 0.85  # alpha 0.2 leaves most images nearly whole


def test_loss_by_hand():
    """The loss of mixed images is that of their logits against mixed labels."""
    mixing = task(mixup=0.4)
    params, state = mixing.init(jax.random.key(0))
    batch = {"image": images((255, 0, 0), (0, 255, 0)), "label": np.array([0, 1], np.int32)}
    key = jax.random.key(5)
    loss, (_, metrics) = mixing.loss(params, state, batch, key)
    s = float(mixup_share(jax.random.split(key)[1], 0.4))
    logits = np.array([s, 1 - s, 0.0])  # of the first; the second has the first two exchanged
    log_p = logits - np.log(np.exp(logits).sum())
    assert float(loss) == pytest.approx(-(s * log_p[0] + (1 - s) * log_p[1]), rel=1e-5)
    assert float(metrics["top1"].total) == 2


def test_evaluation_does_not_mix():
    plain, mixing = task(), task(mixup=0.4)
    params, state = plain.init(jax.random.key(0))
    batch = {
        "image": images((255, 0, 0), (0, 255, 0)),
        "label": np.array([0, 1], np.int32),
        "mask": np.ones(2, np.float32),
    }
    a, b = (t.evaluate(params, state, batch).sums["loss"].total for t in (plain, mixing))
    assert float(a) == float(b)
    assert dataclasses.replace(mixing, mixup=0.0) == plain


def test_on_a_mesh_no_batch_is_gathered():
    mesh = make_mesh()
    batch = put_batch({"x": np.arange(64.0, dtype=np.float32).reshape(16, 4)}, mesh)
    with jax.set_mesh(mesh):
        mix = jax.jit(mix_neighbours)
        text = mix.lower(batch["x"], jnp.float32(0.7)).compile().as_text()
        mixed = mix(batch["x"], jnp.float32(0.7))
    assert "all-gather" not in text
    np.testing.assert_allclose(mixed, mix_neighbours(np.asarray(batch["x"]), jnp.float32(0.7)))
