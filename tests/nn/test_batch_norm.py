import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from condconv_jax import models
from condconv_jax.nn import GroupedBatchNorm
from condconv_jax.runtime import make_mesh, put_batch

X = jax.random.normal(jax.random.key(0), (8, 3, 5, 4)) * 2 + 1


def run(module, x, train=True):
    """Output and statistics after one step from drawn parameters."""
    variables = module.init(jax.random.key(1), x)
    drawn = jax.tree.map(
        lambda leaf: 0.5 + jax.random.uniform(jax.random.key(leaf.size), leaf.shape), variables
    )
    return module.apply(drawn, x, mutable=["batch_stats"]) if train else module.apply(drawn, x)


def close(a, b, tolerance=2e-6):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, rtol=tolerance, atol=tolerance), a, b
    )


def test_one_group_is_flax():
    """Same parameters, statistics and outputs; sums in another order."""
    options = {"momentum": 0.8, "epsilon": 1e-3}
    ours = run(GroupedBatchNorm(8, **options), X)
    flax = run(nn.BatchNorm(use_running_average=False, **options), X)
    close(ours, flax)


def test_evaluation_is_that_of_flax():
    ours = run(GroupedBatchNorm(3, use_running_average=True), X, train=False)
    flax = run(nn.BatchNorm(use_running_average=True, epsilon=1e-5), X, train=False)
    close(ours, flax)


def test_each_group_is_a_batch_of_its_own():
    y, _ = run(GroupedBatchNorm(2), X)
    parts = [run(GroupedBatchNorm(2), X[i : i + 2])[0] for i in range(0, 8, 2)]
    close(y, jnp.concatenate(parts))


def test_running_statistics_move_by_the_mean_of_the_groups():
    """Groups (0, 2) and (4, 8): means 1 and 6, variances 1 and 4; a tenth of 3.5 and 2.5."""
    x = jnp.array([0.0, 2.0, 4.0, 8.0])[:, None]
    module = GroupedBatchNorm(2, momentum=0.9)
    variables = module.init(jax.random.key(0), x)
    _, after = module.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(after["batch_stats"]["mean"], [0.35], rtol=1e-6)
    np.testing.assert_allclose(after["batch_stats"]["var"], [0.9 + 0.25], rtol=1e-6)


def test_gradients():
    module = GroupedBatchNorm(4, epsilon=1e-2)
    variables = module.init(jax.random.key(0), X)

    def loss(params, x):
        both = {**variables, "params": params}
        y, _ = module.apply(both, jnp.asarray(x), mutable=["batch_stats"])
        return jnp.sin(y).sum()

    with jax.enable_x64():
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (variables["params"], X))
        check_grads(loss, wide, order=1, modes=["rev"])


def test_bfloat16_has_float32_statistics():
    y, after = run(GroupedBatchNorm(4, dtype=jnp.bfloat16), X.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}


def test_a_constant_channel_is_no_division_by_zero():
    y, _ = run(GroupedBatchNorm(2), jnp.full((4, 2, 2, 3), 1e4))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("group_size", [3, 0, 16])
def test_groups_that_do_not_divide_the_batch_are_refused(group_size):
    with pytest.raises(ValueError, match=rf"group_size is {group_size}, the batch has 8 examples"):
        run(GroupedBatchNorm(group_size), X)


def test_groups_of_a_device_are_sent_nowhere():
    mesh, module = make_mesh(), GroupedBatchNorm(1)
    variables = module.init(jax.random.key(0), X)

    def outputs(variables, batch):
        return module.apply(variables, batch["x"], mutable=["batch_stats"])[0]

    with jax.set_mesh(mesh):
        text = jax.jit(outputs).lower(variables, put_batch({"x": X}, mesh)).compile().as_text()
    for moving in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert moving not in text


def test_every_batch_norm_of_a_network_is_in_groups():
    model = models.create("efficientnet_b0", 5, batch_norm_group=2)
    images = jnp.zeros((3, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images[:2])
    plain = models.create("efficientnet_b0", 5)
    assert variables == jax.eval_shape(plain.init, jax.random.key(0), images[:2])
    with pytest.raises(ValueError, match="group_size is 2, the batch has 3 examples"):
        jax.eval_shape(
            lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]), variables
        )
    with pytest.raises(ValueError, match="batch_norm_group is -1"):
        models.create("mobilenet_v1", 5, batch_norm_group=-1).conditional_layers()
