import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.runtime import (
    batch_sharding,
    make_mesh,
    put_batch,
    replicated,
)


def test_mesh_has_one_auto_axis():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": 8}
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,)
    assert make_mesh(jax.devices()[:2]).size == 2


def test_mesh_without_devices():
    with pytest.raises(ValueError, match="make_mesh: no devices"):
        make_mesh([])


def test_put_batch_splits_the_leading_axis():
    mesh = make_mesh()
    batch = {
        "image": np.arange(16 * 3, dtype=np.float32).reshape(16, 3),
        "boxes": {"label": np.arange(16)},
    }
    placed = put_batch(batch, mesh)
    assert placed["image"].sharding == batch_sharding(mesh)
    assert {s.data.shape for s in placed["image"].addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(placed["image"], batch["image"])
    np.testing.assert_array_equal(placed["boxes"]["label"], batch["boxes"]["label"])


def test_replicated_parameters_meet_a_split_batch():
    mesh = make_mesh()
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    w = jax.device_put(np.eye(4, dtype=np.float32), replicated(mesh))
    y = jax.jit(jnp.dot)(put_batch({"x": x}, mesh)["x"], w)
    np.testing.assert_array_equal(y, x)
    assert y.sharding.is_equivalent_to(batch_sharding(mesh), y.ndim)


def test_put_batch_that_does_not_divide():
    with pytest.raises(ValueError, match=r"has 6 examples.*8 devices; use a multiple of 8.*pad"):
        put_batch({"image": np.zeros((6, 2))}, make_mesh())


def test_put_batch_with_unequal_axes():
    batch = {"image": np.zeros((8, 2)), "label": np.zeros(4)}
    with pytest.raises(ValueError, match=r"leading axes are \[image 8, label 4\]; every array"):
        put_batch(batch, make_mesh())


def test_put_batch_with_a_scalar():
    with pytest.raises(ValueError, match="epoch none"):
        put_batch({"epoch": np.float32(1), "label": np.zeros(8)}, make_mesh())
