"""The geometry of a convolution: strides, padding, dilation and groups, checked once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

Padding = str | int | Sequence[int | tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A 2-D convolution without its arrays; every field is plain and hashable.

    Attributes:
      kernel_size: (kh, kw).
      strides: (rows, columns).
      padding: ((top, bottom), (left, right)), in pixels.
      kernel_dilation: (rows, columns); 1 is none.
      groups: feature groups.
      out_size: (h', w').
    """

    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    kernel_dilation: tuple[int, int]
    groups: int
    out_size: tuple[int, int]

    def is_pointwise(self) -> bool:
        """Whether the kernel is 1x1 over all channels."""
        return self.kernel_size == (1, 1) and self.groups == 1

    def is_depthwise(self, channels: int) -> bool:
        """Whether each input channel is a group of its own."""
        return self.groups == channels and channels > 1

    def positions(self) -> int:
        """Output positions of one example, h'*w'."""
        return self.out_size[0] * self.out_size[1]

    def pads(self) -> bool:
        """Whether any pixel is padded."""
        return any(p != 0 for pair in self.padding for p in pair)


def make_geometry(
    where: str,
    x_shape: Sequence[Any],
    kernel_shape: Sequence[int],
    *,
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int],
    feature_group_count: int,
) -> Geometry:
    """Checks a convolution's arguments and resolves them.

    Args:
      where: the public function that was called, for messages.
      x_shape: (b, h, w, c); b may be symbolic, in a program that is being exported.
      kernel_shape: (kh, kw, c/g, f).
      strides: one number or (rows, columns).
      padding: "SAME", "SAME_LOWER", "VALID", pixels on every side, or per spatial axis pixels or
        (low, high).
      kernel_dilation: one number or (rows, columns).
      feature_group_count: g.

    Raises:
      ValueError: naming the argument, what it is, what it should be.
    """
    if len(x_shape) != 4 or len(kernel_shape) != 4:
        raise ValueError(
            f"{where}: inputs are {tuple(x_shape)} and one kernel {tuple(kernel_shape)}; "
            "pass (b, h, w, c) and (kh, kw, c/g, f)"
        )
    kh, kw, in_channels, features = kernel_shape
    channels, groups = x_shape[3], feature_group_count
    if groups < 1 or in_channels * groups != channels:
        raise ValueError(
            f"{where}: inputs have {channels} channels, the kernel takes {in_channels} in each of "
            f"{groups} groups; pass kernels with {channels}/{groups} input channels"
        )
    if features % groups:
        raise ValueError(
            f"{where}: {features} output channels in {groups} groups; pass a multiple of {groups}"
        )
    if min(kh, kw, in_channels, features) < 1:
        raise ValueError(
            f"{where}: one kernel is {tuple(kernel_shape)}; "
            "pass (kh, kw, c/g, f) of at least 1 each"
        )
    stride_pair = _pair(where, "strides", strides)
    dilation_pair = _pair(where, "kernel_dilation", kernel_dilation)
    window = tuple((k - 1) * d + 1 for k, d in zip((kh, kw), dilation_pair, strict=True))
    pads = _resolve_padding(where, padding, x_shape[1:3], window, stride_pair)
    out_size = tuple(
        (n + low + high - k) // s + 1
        for n, (low, high), k, s in zip(x_shape[1:3], pads, window, stride_pair, strict=True)
    )
    if min(out_size) < 1:
        raise ValueError(
            f"{where}: a kernel that spans {window} does not fit into inputs of "
            f"{tuple(x_shape[1:3])} padded by {pads}; pad more or use a smaller kernel"
        )
    return Geometry((kh, kw), stride_pair, pads, dilation_pair, groups, out_size)


def _pair(where: str, name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or any(not isinstance(v, int | np.integer) or v < 1 for v in pair):
        raise ValueError(f"{where}: {name} is {value!r}; pass a positive integer or two")
    return int(pair[0]), int(pair[1])


def _resolve_padding(
    where: str,
    padding: Padding,
    size: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    if isinstance(padding, str):
        if padding not in ("SAME", "SAME_LOWER", "VALID"):
            raise ValueError(
                f"{where}: padding is {padding!r}; pass 'SAME', 'SAME_LOWER', 'VALID', pixels, or "
                "((top, bottom), (left, right)); pad the inputs with jnp.pad for any other kind"
            )
        pads = tuple(lax.padtype_to_pads(size, window, strides, padding))
    else:
        per_axis = padding if isinstance(padding, Sequence) else (padding, padding)
        pads = tuple(tuple(p) if isinstance(p, Sequence) else (p, p) for p in per_axis)  # type: ignore[misc]
    pixels = [p for pair in pads for p in pair]
    if [len(pair) for pair in pads] != [2, 2] or any(
        not isinstance(p, int | np.integer) or p < 0 for p in pixels
    ):
        raise ValueError(
            f"{where}: padding is {padding!r}; pass ((top, bottom), (left, right)), not negative"
        )
    (top, bottom), (left, right) = pads
    return (int(top), int(bottom)), (int(left), int(right))
