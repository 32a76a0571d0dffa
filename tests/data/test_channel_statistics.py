import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import data

# What our own statistics were counted on, or a part of it; the third is a folder of real data. Of
# CIFAR-100 it is the test pictures, a quicker read and as good a sample.
COUNTED = {
    "fashion_mnist": ("fashion_mnist", "train[:1000]", ""),
    "cifar100": ("npz", "test[:1000]", "cifar100"),
    "tiny_imagenet_50": ("npz", "train[:800]", "tiny-imagenet-50"),
    "generated_words": ("generated_words", "train[:60]", ""),
}
# Mean and standard deviation of pixels 0..255. The first and the last are MEAN_RGB and STDDEV_RGB
# of tensorflow/tpu, models/official/efficientnet: efficientnet_builder.py and
# condconv/efficientnet_condconv_builder.py. Inception takes 0 to -1 and 255 to 1.
PUBLISHED = {
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "inception": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "efficientnet_condconv": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}


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


@pytest.mark.parametrize("name", COUNTED)
def test_every_data_set_comes_out_centred(name, request):
    source, split, folder = COUNTED[name]
    path = str(request.getfixturevalue("real_data") / folder) if folder else ""
    source = data.open_source(source, split, path=path)
    pictures = np.stack([sample["image"] for sample in source])
    normalised = data.normalize(pictures, *data.STATISTICS[name])
    # Of all pictures the mean is 0 and the mean square 1.
    for power, expected in ((1, 0), (2, 1)):
        found = (normalised**power).mean(axis=(1, 2))
        # Five standard errors of a part drawn at random: as many of each class is no worse.
        error = found.std(axis=0) / np.sqrt(len(found))
        assert (abs(found.mean(axis=0) - expected) < 5 * error).all()


def test_published_statistics_are_those_of_their_networks():
    assert set(data.STATISTICS) == {*COUNTED, *PUBLISHED}
    for name, (mean, std) in PUBLISHED.items():
        # Divided by 255 and rounded once more, in float64.
        np.testing.assert_allclose(255 * np.array(data.STATISTICS[name].mean), mean, rtol=1e-15)
        np.testing.assert_allclose(255 * np.array(data.STATISTICS[name].std), std, rtol=1e-15)


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
