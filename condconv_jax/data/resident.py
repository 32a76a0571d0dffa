"""Training batches of pictures that lie in the device's memory, cropped and mirrored there.

An accelerator trains a small network on small pictures faster than Python can read them, and on a
CPU reading takes cores from training: some 50 us a picture of 32 pixels. A data set such as CIFAR
fits into the device's memory, so each step sends it no more than a batch of indices.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from condconv_jax.data.source import Sample, Source
from condconv_jax.data.transforms import PadAndRandomCrop, RandomFlip, Steps


def check_resident(transform: Steps) -> None:
    """Checks that `ResidentBatches` can do what a transform does, and in this run.

    Args:
      transform: of `make_transforms` for training.

    Raises:
      ValueError: if not.
    """
    crop, *others = transform.steps
    if not isinstance(crop, PadAndRandomCrop) or others not in ([], [RandomFlip()]):
        raise ValueError(
            "ResidentBatches: on the device pictures are padded, cropped and mirrored, nothing "
            'else; pass config.data.crop="pad" and config.data.augment="none", or '
            "config.data.on_device=False"
        )
    if jax.process_count() > 1:
        raise ValueError(
            "ResidentBatches: this run has several processes, whose devices do not share "
            "pictures; pass config.data.on_device=False"
        )


class ResidentBatches(Iterator[dict[str, Array]]):
    """An endless stream of training batches, made on the device.

    As `train_batches`: every epoch is a new permutation of the source, batches run across the ends
    of epochs, and sample k of the stream, its augmentation included, depends on the source, the
    transform, the seed and k only. Order and augmentations are others than those of
    `train_batches` with the same seed.

    A batch is {"image": uint8 (b, s, s, c), "label": int32 (b,)}.
    """

    def __init__(
        self,
        source: Source[Sample],
        transform: Steps,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
    ):
        """Reads all pictures, and puts them on the default device.

        Args:
          source: pictures of one size.
          transform: of `make_transforms` for training, with crop "pad" and nothing after the flip.
          batch_size: samples of a batch.
          seed: 0..2**32 - 1; fixes order and augmentations.
          start: index of the first sample, steps already taken times batch_size.

        Raises:
          ValueError: for another transform, pictures of several sizes or too small for the crop,
            and in a run of several processes.
        """
        check_resident(transform)
        crop, *flips = transform.steps
        assert isinstance(crop, PadAndRandomCrop)
        self._crop, self._flip = crop, bool(flips)
        images, labels = _read(source)
        # Raises for pictures that are too small, as the host's pipeline does on use.
        self._crop(images[0], np.random.default_rng(0))
        self._images, self._labels = jnp.asarray(images), jnp.asarray(labels)
        order_seed, augmentation_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
        self._order_seed = order_seed
        self._key = jax.random.key(augmentation_seed)
        self._batch_size = batch_size
        self._next = start
        self._epoch = -1
        self._order = np.empty(0, np.int32)

    def __next__(self) -> dict[str, Array]:
        """Returns the next batch."""
        positions = np.arange(self._next, self._next + self._batch_size)
        indices = np.empty(self._batch_size, np.int32)
        for epoch in np.unique(positions // len(self._labels)):
            of_epoch = positions // len(self._labels) == epoch
            order = self._order_of(int(epoch))
            indices[of_epoch] = order[positions[of_epoch] % len(self._labels)]
        self._next += self._batch_size
        return _batch(
            self._images,
            self._labels,
            indices,
            # Keys are folded from 32 bits: after 4 billion samples augmentations come again.
            positions.astype(np.uint32),
            self._key,
            crop=self._crop,
            flip=self._flip,
        )

    def close(self) -> None:
        """Does nothing: nothing is read ahead."""

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng([self._order_seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self._labels)).astype(np.int32)
        return self._order


@functools.partial(jax.jit, static_argnames=("crop", "flip"))
def _batch(
    images: UInt8[Array, "n h w c"],
    labels: Int[Array, "n"],
    indices: Int[Array, "b"],
    positions: Int[Array, "b"],
    key: Array,
    *,
    crop: PadAndRandomCrop,
    flip: bool,
) -> dict[str, Any]:
    _, height, width, _ = images.shape

    def window(index: Array, position: Array) -> Array:
        row_key, column_key, flip_key = jax.random.split(jax.random.fold_in(key, position), 3)
        rows = _window(row_key, height, crop)
        columns = _window(column_key, width, crop)
        if flip:
            columns = jnp.where(jax.random.bernoulli(flip_key), columns[::-1], columns)
        # Fills with black outside of the picture. Negative indices would count from its end.
        outside = max(height, width)
        rows, columns = (jnp.where(x < 0, outside, x) for x in (rows, columns))
        return images.at[index, rows[:, None], columns[None, :]].get(mode="fill", fill_value=0)

    return {"image": jax.vmap(window)(indices, positions), "label": labels[indices]}


def _window(key: Array, length: int, crop: PadAndRandomCrop) -> Int[Array, "s"]:
    """Indices of a random window along one axis, also outside of it."""
    spare = length + 2 * crop.padding - crop.size
    first = jax.random.randint(key, (), 0, spare + 1) - crop.padding
    return first + jnp.arange(crop.size)


def _read(source: Source[Sample]) -> tuple[np.ndarray, np.ndarray]:
    if len(source) == 0:
        raise ValueError(f"ResidentBatches: the source {source.name} is empty")
    first = source[0]["image"]
    images = np.empty((len(source), *first.shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for index in range(len(source)):
        sample = source[index]
        if sample["image"].shape != first.shape:
            raise ValueError(
                f"ResidentBatches: picture {index} of {source.name} is {sample['image'].shape}, "
                f"the first {first.shape}; on the device all have one size: pass "
                "config.data.on_device=False"
            )
        images[index], labels[index] = sample["image"], sample["label"]
    return images, labels
