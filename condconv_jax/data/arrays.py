"""Sources that live in memory: pictures as one array, or as the bytes of their files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from condconv_jax.data.decoding import decode_image
from condconv_jax.data.source import NamedSource, Sample, checked_index


@dataclass(frozen=True, eq=False, repr=False)
class ArraySource(NamedSource[Sample]):
    """Pictures of one size in an array.

    Grey pictures become three equal channels when they are read, so the array stays small.

    Attributes:
      images: uint8 (n, h, w), (n, h, w, 1) or (n, h, w, 3).
      labels: integers (n,), 0..len(class_names) - 1.
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      ValueError: if images or labels have another shape or type, differ in number, or a
        label has no class.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        images = self.images
        channels = images.shape[3] if images.ndim == 4 else 1
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or channels not in (1, 3):
            raise ValueError(
                f"ArraySource: {self.name} has images {images.dtype} {images.shape}; wants uint8 "
                f"(n, h, w), (n, h, w, 1) or (n, h, w, 3)"
            )
        if images.ndim == 3:
            object.__setattr__(self, "images", images[..., np.newaxis])
        labels = checked_labels("ArraySource", self.labels, len(images), self)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        image = self.images[index]
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        return {"image": image, "label": int(self.labels[index])}


@dataclass(frozen=True, eq=False, repr=False)
class EncodedSource(NamedSource[Sample]):
    """Picture files (JPEG, PNG, ...) one after another in memory, decoded when read.

    Attributes:
      data: uint8 (bytes,), the files' bytes.
      offsets: integers (n + 1,); file i is data[offsets[i]:offsets[i + 1]].
      labels: integers (n,), 0..len(class_names) - 1.
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      ValueError: if the offsets do not fit the data, or the labels do not fit the offsets or
        the classes; on reading, if a picture cannot be decoded.
    """

    data: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    _bytes: memoryview = field(init=False)

    def __post_init__(self) -> None:
        offsets = checked_offsets("EncodedSource", self.data, self.offsets, self.name)
        labels = checked_labels("EncodedSource", self.labels, len(offsets) - 1, self)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "_bytes", np.ascontiguousarray(self.data).data)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        file = self._bytes[self.offsets[index] : self.offsets[index + 1]]
        image = decode_image(file, f"picture {index} of {self.name}")
        return {"image": image, "label": int(self.labels[index])}


def checked_offsets(function: str, data: np.ndarray, offsets: np.ndarray, name: str) -> np.ndarray:
    """Returns `offsets` as int64 if they cut `data` into whole pieces.

    Raises:
      ValueError: naming `function` and `name`, if they do not.
    """
    fits = (
        data.dtype == np.uint8
        and data.ndim == 1
        and offsets.ndim == 1
        and len(offsets) >= 1
        and np.issubdtype(offsets.dtype, np.integer)
    )
    if fits:
        offsets = offsets.astype(np.int64)  # differences of unsigned ones would wrap around
        fits = offsets[0] == 0 and offsets[-1] == len(data) and bool((np.diff(offsets) > 0).all())
    if not fits:
        raise ValueError(
            f"{function}: {name} has data {data.dtype} {data.shape} and offsets {offsets.dtype} "
            f"{offsets.shape}; wants uint8 (bytes,) and rising integers (n + 1,) from 0 to the "
            f"number of bytes; write the file again"
        )
    return offsets


def checked_labels(
    function: str, labels: np.ndarray, count: int, source: NamedSource[Any]
) -> np.ndarray:
    """Returns `labels` (count,) as int64.

    Raises:
      ValueError: naming `function`, if they are not `count` integers or one has no class.
    """
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{function}: {source.name} has labels {labels.dtype} {labels.shape} for {count} "
            f"pictures; wants integers ({count},), one per picture"
        )
    if count and not 0 <= labels.min() <= labels.max() < source.num_classes:
        raise ValueError(
            f"{function}: {source.name} has labels {labels.min()}..{labels.max()} for "
            f"{source.num_classes} classes; wants 0..{source.num_classes - 1}; renumber them or "
            f"name every class"
        )
    return labels.astype(np.int64)


def numbered_names(count: int) -> tuple[str, ...]:
    """Returns "0", "1", ... for classes without names."""
    return tuple(str(label) for label in range(count))


def text_names(names: Sequence[str] | np.ndarray) -> tuple[str, ...]:
    """Returns class names as plain strings, whatever array or list they came in."""
    return tuple(str(name) for name in names)
