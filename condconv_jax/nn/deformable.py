"""Deformable convolution: each output looks where the input tells it to."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from condconv_jax import ops
from condconv_jax.nn.arguments import ConvArguments, kernel_shape, static_method
from condconv_jax.nn.cond_conv import CondConv
from condconv_jax.ops.geometry import Geometry, make_geometry
from condconv_jax.ops.partition import over_batch
from condconv_jax.ops.precision import wide


class DeformableConv(ConvArguments):
    """A convolution whose taps are moved by offsets that a convolution of the input gives.

    y(p) = sum_t W(t) . (m(p, t) *) x(p + t + offset(p, t)), bilinear in x, zero outside

    The kernel is the same for every example; what it meets is not. Offsets are shared by all
    channels, also of a depthwise convolution, and come from all of them: one deformable group.
    They start at zero, where the layer is an ordinary convolution; modulated (version 2), where
    each sample is weighted by m, a sigmoid, it starts at half of one.

    Parameters: `kernel` (kh, kw, c/g, f); `bias` (f,); `offset/kernel` (kh, kw, c, n*kh*kw),
    `offset/bias` (n*kh*kw,), with n = 2, or modulated 3, for each tap: rows down, columns right,
    logit of m.

    Attributes, beside those of `ConvArguments` or more exactly:
      modulated: whether samples are weighted too (version 2).
      feature_group_count: g; equal to the input channels for a depthwise convolution. The
        convolution that gives the offsets has one group.
      use_bias: whether a bias is added to the output; that of the offsets always is.
      dtype: of the computation; None for that of inputs and parameters. Positions and the weights
        of interpolation are float32.
      method: of both convolutions, which are static: "auto" or "portable" as in `ops.conv`; any
        other name in `ops.METHODS` runs XLA's.

    Cost: b*h'*w'*kh*kw*(c/g)*f MADDs + b*h'*w'*kh*kw*c*n*kh*kw for the offsets; interpolation, of
      4 element-wise products for each of b*h'*w'*kh*kw*c samples, not counted. The samples are
      held in memory, kh*kw times the input.
    Source: Dai et al., arXiv 1703.06211, eqs. 2 to 4; version 2: Zhu et al., arXiv 1811.11168,
      eq. 1, which learns the offsets' layer at a tenth of the learning rate; that is left to the
      optimiser (`training.make_optimizer`, offset_rate).
    """

    modulated: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the convolution of what the moved taps meet.

        Args:
          x: inputs.
          train: without effect; other layers of this interface have batch norms.

        Raises:
          ValueError: as `ops.conv` does.
        """
        del train
        method = static_method("DeformableConv", self.method)
        groups = self.feature_group_count
        shape = kernel_shape("DeformableConv", x, self.features, self.kernel_size, groups)
        placing: dict[str, Any] = {"strides": self.strides, "padding": self.padding}
        geometry = make_geometry(
            "DeformableConv",
            x.shape,
            shape,
            kernel_dilation=1,
            feature_group_count=groups,
            **placing,
        )
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        offset = CondConv(
            (3 if self.modulated else 2) * shape[0] * shape[1],
            shape[:2],
            num_experts=0,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=initializers.zeros,
            method=self.method,
            name="offset",
            **placing,
        )
        samples = over_batch(lambda x, moved: sample(x, moved, geometry), (x, offset(x)), ())
        b, h, w, taps, c = samples.shape
        if groups == 1:
            windows, kernel = (
                samples.reshape(b, h, w, taps * c),
                kernel.reshape(1, 1, taps * c, self.features),
            )
            y = ops.conv(windows, kernel, method=method)
        else:
            # Window next to window in a row: the kernel strides from one to the next.
            row, kernel = (
                samples.reshape(b, h, w * taps, c),
                kernel.reshape(1, taps, c // groups, self.features),
            )
            y = ops.conv(
                row,
                kernel,
                strides=(1, taps),
                padding="VALID",
                feature_group_count=groups,
                method=method,
            )
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def sample(
    x: Float[Array, "b h w c"], offsets: Float[Array, "b h_out w_out n"], geometry: Geometry
) -> Float[Array, "b h_out w_out taps c"]:
    """Returns what the moved taps of each output meet, in the order of the kernel's.

    Args:
      x: inputs.
      offsets: for each output and tap 2 or 3 numbers: rows down, columns right, and where there is
        a third the logit of the sample's weight.
      geometry: of the convolution.
    """
    b, h, w, n = offsets.shape
    (kh, kw), dtype = geometry.kernel_size, wide(x.dtype)
    offsets = offsets.astype(dtype).reshape(b, h, w, kh * kw, n // (kh * kw))
    # (1, h', 1, kh*kw) and (1, 1, w', kh*kw): where the taps are before they are moved.
    rows = jnp.asarray(np.repeat(_positions(0, geometry), kw, axis=1)[None, :, None], dtype)
    columns = jnp.asarray(np.tile(_positions(1, geometry), (1, kh))[None, None], dtype)

    def one_channel(plane: Array, rows: Array, columns: Array) -> Array:
        return map_coordinates(plane, [rows, columns], order=1, mode="constant")

    # Over channels inside, so that a pixel's are read together.
    all_channels = jax.vmap(one_channel, in_axes=(2, None, None), out_axes=3)
    samples = jax.vmap(all_channels)(x, rows + offsets[..., 0], columns + offsets[..., 1])
    if offsets.shape[-1] == 3:
        samples = samples * jax.nn.sigmoid(offsets[..., 2:]).astype(samples.dtype)
    return samples


def _positions(axis: int, geometry: Geometry) -> np.ndarray:
    """Rows (or columns) of the input under each output's taps, (h', kh) or (w', kw)."""
    starts = np.arange(geometry.out_size[axis]) * geometry.strides[axis]
    taps = np.arange(geometry.kernel_size[axis]) * geometry.kernel_dilation[axis]
    return starts[:, None] - geometry.padding[axis][0] + taps[None]
