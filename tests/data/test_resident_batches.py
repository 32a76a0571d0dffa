"""Batches made on the device against what the host's steps do to the same pictures."""

import itertools

import jax
import numpy as np
import pytest

from condconv_jax.data import ArraySource, ResidentBatches, make_transforms
from condconv_jax.data.transforms import _window

COUNT, SIZE = 12, 6
CLASSES = tuple("abc")


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    # No pixel is black, which stands for the border, and none is there twice.
    values = 1 + rng.permutation(COUNT * SIZE * SIZE)
    images = np.stack([values % 251 + 1, values // 251, values % 7], axis=-1)
    images = images.reshape(COUNT, SIZE, SIZE, 3).astype(np.uint8)
    return ArraySource(images, np.arange(COUNT) % 3, CLASSES, "pictures")


def batches(source, count, *, start=0, seed=3, batch_size=5, **options):
    transform = make_transforms(SIZE, train=True, **options)
    stream = ResidentBatches(source, transform, batch_size=batch_size, seed=seed, start=start)
    return [jax.device_get(batch) for batch in itertools.islice(stream, count)]


def joined(found):
    return (np.concatenate([batch[key] for batch in found]) for key in ("image", "label"))


def test_without_padding_and_mirroring_every_epoch_is_a_permutation(source):
    images, labels = joined(batches(source, 12, padding=0, flip=False))
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    known = {source[i]["image"].tobytes(): i for i in range(COUNT)}
    found = [known[image.tobytes()] for image in images]
    orders = np.reshape(found, (5, COUNT))  # across the ends of epochs, nothing dropped
    for order in orders:
        assert sorted(order) == list(range(COUNT))
    assert len({tuple(order) for order in orders}) == 5
    np.testing.assert_array_equal(labels, np.array(found) % 3)


def test_windows_are_those_of_the_padded_picture_mirrored_or_not(source):
    padding = 2
    images, _ = joined(batches(source, 240, padding=padding))
    windows = {}
    for index, row, column in itertools.product(range(COUNT), *(range(-padding, padding + 1),) * 2):
        window = _window(source[index]["image"], row, column, SIZE)
        windows[window.tobytes()] = (index, row, column, False)
        windows[window[:, ::-1].tobytes()] = (index, row, column, True)
    found = [windows[image.tobytes()] for image in images]
    # 1,200 draws: each of 5 places of either axis is expected 240 times with a standard deviation
    # of 14, mirroring 600 times with one of 17; five deviations.
    for axis in (1, 2):
        counts = np.bincount([one[axis] + padding for one in found], minlength=5)
        assert np.all(np.abs(counts - 240) < 70)
    assert abs(sum(one[3] for one in found) - 600) < 87


def test_a_stream_continued_is_the_same(source):
    whole = batches(source, 7)
    rest = batches(source, 4, start=15)
    for one, two in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(one["image"], two["image"])
        np.testing.assert_array_equal(one["label"], two["label"])
    # Neither does the size of a batch matter, only the place in the stream.
    for one, two in zip(joined(whole), joined(batches(source, 5, batch_size=7)), strict=True):
        np.testing.assert_array_equal(one, two)
    other = batches(source, 1, seed=4)[0]
    assert not np.array_equal(whole[0]["image"], other["image"])


def test_what_cannot_be_done_on_the_device_is_refused(source, monkeypatch):
    with pytest.raises(ValueError, match=r'pass config.data.crop="pad"'):
        batches(source, 1, crop="resized")
    with pytest.raises(ValueError, match=r'config.data.augment="none"'):
        batches(source, 1, augment="autoaugment")
    transform = make_transforms(SIZE + 3, train=True, padding=1)
    with pytest.raises(ValueError, match="raise padding"):
        ResidentBatches(source, transform, batch_size=2, seed=0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="several processes"):
        batches(source, 1)


def test_pictures_of_several_sizes_are_refused():
    class Mixed(ArraySource):
        def __getitem__(self, index):
            return {"image": np.zeros((SIZE + index, SIZE, 3), np.uint8), "label": 0}

    mixed = Mixed(np.zeros((2, SIZE, SIZE, 3), np.uint8), np.zeros(2, int), CLASSES, "mixed")
    with pytest.raises(
        ValueError, match=r"picture 1 of mixed is \(7, 6, 3\), the first \(6, 6, 3\)"
    ):
        batches(mixed, 1)
