import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import data


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_normalize_is_the_formula():
    batch = images(4, 5, 6, 3)
    mean, std = data.STATISTICS["imagenet"]
    result = data.normalize(batch, mean, std)
    assert result.dtype == np.float32
    # Two float32 roundings of values up to 2.7.
    np.testing.assert_allclose(result, (batch / 255 - mean) / std, rtol=0, atol=5e-7)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_jax_arrays_give_the_same_and_stay_jax_arrays(transform):
    batch = images(4, 5, 6, 3)
    mean, std = data.STATISTICS["cifar100"]
    with jax.numpy_rank_promotion("raise"):
        result = transform(lambda x: data.normalize(x, mean, std))(jnp.asarray(batch))
    assert isinstance(result, jax.Array)
    assert result.dtype == jnp.float32
    # XLA may fuse the product and the difference into one rounding.
    np.testing.assert_allclose(result, data.normalize(batch, mean, std), rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", list(data.STATISTICS))
def test_every_data_set_comes_out_centred(name):
    mean, std = data.STATISTICS[name]
    assert all(0 < value < 1 for value in (*mean, *std))
    grey = np.round(255 * np.array(mean)).astype(np.uint8)  # within half a level of the mean
    assert abs(data.normalize(grey, mean, std)).max() <= 0.5 / 255 / min(std) + 1e-6


def test_what_cannot_be_normalised_is_refused():
    mean, std = data.STATISTICS["imagenet"]
    with pytest.raises(ValueError, match=r"normalize: got pixels float32; wants uint8"):
        data.normalize(images(2, 2, 3).astype(np.float32), mean, std)
    with pytest.raises(ValueError, match=r"got images \(2, 2, 1\), 3 means and 3 standard dev"):
        data.normalize(images(2, 2, 1), mean, std)
    with pytest.raises(ValueError, match=r"3 means and 1 standard deviations; wants one of each"):
        data.normalize(images(2, 2, 3), mean, (0.5,))
    with pytest.raises(ValueError, match=r"got std \(0.5, 0.0, 0.5\); wants positive values"):
        data.normalize(images(2, 2, 3), mean, (0.5, 0.0, 0.5))
