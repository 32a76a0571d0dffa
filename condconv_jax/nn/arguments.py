"""What the relatives of `CondConv` take as it does, and checks of it that all of them share."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers
from jaxtyping import Array, DTypeLike

from condconv_jax.names import unknown_name
from condconv_jax.ops.experts import Initializer
from condconv_jax.ops.geometry import Padding
from condconv_jax.ops.methods import CHOOSING, METHODS


class ConvArguments(nn.Module):
    """The attributes that the relatives of `CondConv` have in common with it.

    Attributes:
      features: f, output channels.
      kernel_size: (kh, kw), or one number for both.
      strides: one number or (rows, columns).
      padding: "SAME", "SAME_LOWER", "VALID", pixels, or ((top, bottom), (left, right)).
      feature_group_count: g; equal to the input channels for a depthwise convolution.
      use_bias: whether a bias is added to the output.
      dtype: of the computation; None for that of inputs and parameters.
      param_dtype: of the parameters.
      kernel_init: initialiser of an ordinary kernel (kh, kw, c/g, f).
      method: how to run it, a name in `ops.METHODS` or "auto".
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = initializers.lecun_normal()
    method: str = "auto"

    @nn.nowrap
    def geometry(self) -> dict[str, Any]:
        """Returns the arguments of the ops that say where outputs lie."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "feature_group_count": self.feature_group_count,
        }


def kernel_shape(
    where: str,
    x: Array,
    features: int,
    kernel_size: int | Sequence[int],
    feature_group_count: int,
) -> tuple[int, int, int, int]:
    """Returns the shape of one kernel, (kh, kw, c/g, f).

    Args:
      where: the module, for messages.
      x: its inputs (b, h, w, c).
      features: f, output channels.
      kernel_size: (kh, kw), or one number for both.
      feature_group_count: g.

    Raises:
      ValueError: if x has not four axes, kernel_size not two numbers, or g does not divide both
        numbers of channels.
    """
    if x.ndim != 4:
        raise ValueError(
            f"{where}: inputs are {x.shape}; pass (b, h, w, c), with b = 1 for one example"
        )
    if isinstance(kernel_size, int | np.integer):
        size: tuple[int, ...] = (kernel_size, kernel_size)
    else:
        size = tuple(kernel_size)
    if len(size) != 2 or any(not isinstance(k, int | np.integer) or k < 1 for k in size):
        raise ValueError(f"{where}: kernel_size is {kernel_size}; pass (kh, kw) of at least 1 each")
    channels, groups = x.shape[-1], feature_group_count
    if features < 1 or groups < 1 or channels % groups or features % groups:
        raise ValueError(
            f"{where}: feature_group_count is {groups} for {channels} input and {features} output "
            "channels; pass a divisor of both, and at least 1 output channel"
        )
    return (int(size[0]), int(size[1]), channels // groups, features)


def static_method(where: str, method: str) -> str:
    """Returns how `ops.conv` runs what a conditional layer of this method leaves static.

    The methods of per-example kernels have no meaning there but the ways to choose one have.

    Raises:
      ValueError: if the method is unknown.
    """
    if method not in (*CHOOSING, *METHODS):
        raise unknown_name(where, "method", method, [*CHOOSING, *METHODS])
    return method if method in CHOOSING else "reference"
