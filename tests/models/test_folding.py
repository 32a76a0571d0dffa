import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import draw

from condconv_jax import models, nn
from condconv_jax.nn import variable_shapes

NETWORKS = {
    "mobilenet_v1": {"width": 0.125, "num_experts": 3, "squeeze_excite": 0.25},
    "efficientnet_b0": {"width": 0.125, "num_experts": 2},
    "resnet50": {"width": 0.0625, "num_experts": 2},
    "resnet_cifar": {"num_experts": 0, "batch_norm_group": 2},
    "ssd300_mobilenet_v1": {"width": 0.125, "num_experts": 2},
}
SIZE = 32


def network(name, wanted=jnp.float32, **options):
    """A network with batch norms that are far from the identity, and images."""
    model = models.create(name, 7, **NETWORKS[name], **options)
    variables, images = draw(model, (3, SIZE, SIZE, 3), wanted)

    def shaken(path, leaf):
        if "_bn" not in jax.tree_util.keystr(path):
            return leaf
        rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
        moved = leaf * rng.uniform(0.5, 1.5, leaf.shape) + rng.uniform(0.1, 0.2, leaf.shape)
        return moved.astype(wanted)

    variables = jax.tree_util.tree_map_with_path(shaken, jax.device_get(variables))
    return model, jax.device_put(variables), images


def run(model, variables, images):
    return jax.tree.leaves(jax.jit(lambda v: model.apply(v, images, train=False))(variables))


# Detectors fold as their backbone does, and all residual blocks alike.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ("resnet50", "ssd300_mobilenet_v1") else ())
        for n in NETWORKS
    ],
)
def test_folded_networks_compute_the_same_without_statistics(float64, name):
    model, variables, images = network(name, float64, dtype=float64)
    folded, weights = models.fold_batch_norm(model, variables)
    assert folded.folded
    assert set(weights) == {"params"}
    shapes = variable_shapes(folded, SIZE)
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, dict(shapes))
    for got, want in zip(run(folded, weights, images), run(model, variables, images), strict=True):
        assert (np.ptp(want, axis=0) > 0.01 * np.abs(want).max()).any()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())


def test_a_kernel_and_its_bias_by_hand():
    model, variables, _ = network("mobilenet_v1")
    _, weights = models.fold_batch_norm(model, variables)
    before, after = variables["params"]["layer_1"]["kernel"], weights["params"]["layer_1"]["kernel"]
    bn, stats = variables["params"]["layer_1_bn"], variables["batch_stats"]["layer_1_bn"]
    for channel in range(4):
        factor = bn["scale"][channel] / np.sqrt(stats["var"][channel] + model.batch_norm_epsilon)
        np.testing.assert_allclose(after[..., channel], before[..., channel] * factor, rtol=1e-6)
        np.testing.assert_allclose(
            weights["params"]["layer_1_bn"]["bias"][channel],
            bn["bias"][channel] - factor * stats["mean"][channel],
            rtol=1e-5,
        )


def test_compressed_experts_and_bfloat16_come_after_folding():
    model, variables, images = network("mobilenet_v1", dtype="bfloat16")
    folded, weights = models.fold_batch_norm(model, variables)
    assert run(folded, weights, images)[0].dtype == jnp.float32
    small = nn.compress_experts(weights["params"], "int8")
    got = run(folded, {"params": small}, images)[0]
    assert np.isfinite(got).all()
    with pytest.raises(ValueError, match="int8; fold before the experts are compressed"):
        models.fold_batch_norm(
            model, {**variables, "params": nn.compress_experts(variables["params"], "int8")}
        )


def test_what_cannot_be_folded():
    model, variables, images = network("mobilenet_v1")
    folded, weights = models.fold_batch_norm(model, variables)
    assert models.folds(model)
    assert not models.folds(folded)
    assert not models.folds(model.clone(cond_layer="odconv"))
    assert models.folds(model.clone(cond_layer="odconv", num_experts=0))
    assert not models.folds(models.create("msdnet", 7))
    with pytest.raises(ValueError, match="folded already"):
        models.fold_batch_norm(folded, weights)
    with pytest.raises(ValueError, match="train the network that was folded"):
        folded.apply(weights, images, train=True)
    with pytest.raises(ValueError, match="'odconv' layers are more than experts"):
        models.fold_batch_norm(model.clone(cond_layer="odconv"), variables)
    with pytest.raises(ValueError, match="MSDNet has no option"):
        models.fold_batch_norm(models.create("msdnet", 7), {})
