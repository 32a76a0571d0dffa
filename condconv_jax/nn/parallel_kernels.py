"""Kernels of several sizes side by side: Inception's block, and MixConv where it is depthwise."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from condconv_jax.nn.arguments import ConvArguments, kernel_shape
from condconv_jax.nn.cond_conv import CondConv
from condconv_jax.ops.experts import Initializer
from condconv_jax.ops.geometry import Geometry, make_geometry

# The largest kernel of GoogLeNet's block, and the least that a depthwise block goes up to.
LARGEST = 5


class ParallelKernels(ConvArguments):
    """Convolutions of several kernel sizes side by side, in the place of one.

    With one group it is GoogLeNet's block: the outputs of 1x1 | 1x1 -> 3x3 | 1x1 -> 5x5 | 3x3 max
    pool -> 1x1, one after another, in the proportions of its first block (inception 3a), of f:
    1/4, 1/2, 1/8, 1/8, with reductions to 3/8 and 1/16, and a ReLU after each reduction. Where f
    is not a multiple of 16 all but the 3x3 branch are rounded down, to at least 1.

    A depthwise convolution has no such form, for an Inception block mixes channels four times.
    It becomes MixConv: the channels are split evenly among kernels of 3x3, 5x5, ..., the
    remainder going to the first.

    `kernel_size` is that of the convolution whose place the block takes, and says where outputs
    are: every kernel is centred where its own would be, so that all paddings and strides mean
    what they mean there. The kernels go up to it, but at least to 5x5: one size alone would be an
    ordinary convolution. GoogLeNet's block goes no further, so with one group it is 1, 3 or 5.

    Parameters: of one group `branch_1x1/...`, `reduce_3x3/...`, `branch_3x3/...`,
    `reduce_5x5/...`, `branch_5x5/...`, `branch_pool/...`; of a depthwise block `branch_3x3/...`,
    `branch_5x5/...` and so on; each a `kernel` (kh, kw, c/g, f) and a `bias` (f,) of its own.

    Attributes, beside those of `ConvArguments` or more exactly:
      features: f, output channels of all branches together; at least 4 with one group.
      kernel_size: an odd number, the same for rows and columns.
      strides: one number or (rows, columns); of the last convolution or the pooling of a branch.
      padding: "SAME", "SAME_LOWER", "VALID", pixels, or ((top, bottom), (left, right)), of a
        kernel of `kernel_size`. A pool of nothing but padding gives 0.
      feature_group_count: 1, or equal to the input channels for a depthwise block.
      use_bias: whether each convolution, reductions too, has a bias.
      kernel_init: initialiser of each convolution's kernel. Depthwise kernels are drawn as part of
        one over all channels, by whose number initialisers of grouped kernels go.
      method: of the convolutions, which are static: see `CondConv` without experts.

    Cost: of one group, with r = h'*w' and n = h*w: b*c*(r*f/4 + n*3f/8 + n*f/16 + r*f/8)
      + b*r*(9*3f/8*f/2 + 25*f/16*f/8) MADDs; depthwise b*r*k*k for each channel of kernel k.
    Source: Szegedy et al., arXiv 1409.4842, figure 2b and table 1; Tan and Le, arXiv 1907.09595,
      section 3.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the outputs of all branches, in the dtype of the computation.

        Args:
          x: inputs.
          train: without effect; other layers of this interface have batch norms.

        Raises:
          ValueError: if there are several groups of several channels, too few features, or a
            kernel_size that is even, not square, or too large, or as `ops.conv` does.
        """
        del train
        groups = self.feature_group_count
        shape = kernel_shape("ParallelKernels", x, self.features, self.kernel_size, groups)
        geometry = make_geometry(
            "ParallelKernels",
            x.shape,
            shape,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=1,
            feature_group_count=groups,
        )
        self._refuse(geometry, x.shape[-1])
        if groups == 1:
            branches = self._inception(x, geometry)
        else:
            branches = self._mixed_depthwise(x, geometry)
        return jnp.concatenate(branches, axis=-1)

    # Not wrapped: Flax would put these names into the scopes by which MADDs are counted.
    @nn.nowrap
    def _inception(self, x: Array, geometry: Geometry) -> list[Array]:
        f = self.features
        one, five, pool = max(1, f // 4), max(1, f // 8), max(1, f // 8)
        three = f - one - five - pool
        reduced_3x3, reduced_5x5 = max(1, 3 * f // 8), max(1, f // 16)
        reduce_3x3 = self._conv(reduced_3x3, 1, name="reduce_3x3")
        reduce_5x5 = self._conv(reduced_5x5, 1, name="reduce_5x5")
        return [
            self._placed(x, one, 1, geometry, name="branch_1x1"),
            self._placed(nn.relu(reduce_3x3(x)), three, 3, geometry, name="branch_3x3"),
            self._placed(nn.relu(reduce_5x5(x)), five, 5, geometry, name="branch_5x5"),
            self._conv(pool, 1, name="branch_pool")(max_pool(x, geometry)),
        ]

    @nn.nowrap
    def _mixed_depthwise(self, x: Array, geometry: Geometry) -> list[Array]:
        channels, branches, start = x.shape[-1], [], 0
        multiplier = self.features // channels
        sizes = range(3, max(LARGEST, geometry.kernel_size[0]) + 1, 2)
        for size, count in zip(sizes, split_evenly(channels, len(sizes)), strict=True):
            if count:
                part = x[..., start : start + count]
                start += count
                branches.append(
                    self._placed(
                        part,
                        count * multiplier,
                        size,
                        geometry,
                        feature_group_count=count,
                        kernel_init=part_of(self.kernel_init, self.features),
                        name=f"branch_{size}x{size}",
                    )
                )
        return branches

    @nn.nowrap
    def _placed(self, x: Array, features: int, size: int, geometry: Geometry, **options) -> Array:
        """A convolution of another kernel size that has its outputs where the geometry has."""
        x, padding = place(x, size, geometry)
        conv = self._conv(features, size, strides=geometry.strides, padding=padding, **options)
        return conv(x)

    def _conv(self, features: int, size: int, **options: Any) -> CondConv:
        return CondConv(
            features,
            size,
            num_experts=0,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            method=self.method,
            **{"kernel_init": self.kernel_init} | options,
        )

    def _refuse(self, geometry: Geometry, channels: int) -> None:
        kh, kw = geometry.kernel_size
        if kh != kw or kh % 2 == 0:
            raise ValueError(
                f"ParallelKernels: kernel_size is {kh}x{kw}; pass an odd number, the same for rows "
                "and columns, so that kernels of all sizes have one centre"
            )
        if geometry.groups not in (1, channels):
            raise ValueError(
                f"ParallelKernels: feature_group_count is {geometry.groups} for {channels} input "
                f"channels; pass 1 for an Inception block or {channels} for a depthwise MixConv"
            )
        if geometry.groups == 1 and kh > LARGEST:
            raise ValueError(
                f"ParallelKernels: kernel_size is {kh}x{kw}, and the largest kernel of an "
                f"Inception block 5x5; pass 1, 3 or {LARGEST}, or keep this convolution"
            )
        if geometry.groups == 1 and self.features < 4:
            raise ValueError(
                f"ParallelKernels: features is {self.features}; pass at least 4, one per branch"
            )


def split_evenly(channels: int, parts: int) -> list[int]:
    """Returns how many channels each part gets; the remainder goes to the first.

    Source: tensorflow/tpu, models/official/mnasnet/mixnet/custom_layers.py, _split_channels.
    """
    return [channels // parts + (channels % parts if part == 0 else 0) for part in range(parts)]


def place(
    x: Array, size: int, geometry: Geometry
) -> tuple[Array, tuple[tuple[int, int], tuple[int, int]]]:
    """Returns inputs and padding with which a kernel of `size` is centred as the geometry's is.

    It needs (size - kernel_size) / 2 more pixels on every side; where that leaves fewer than none,
    the inputs are cropped.
    """
    more = (size - geometry.kernel_size[0]) // 2
    (top, bottom), (left, right) = ((low + more, high + more) for low, high in geometry.padding)
    rows = slice(max(0, -top), x.shape[1] - max(0, -bottom))
    columns = slice(max(0, -left), x.shape[2] - max(0, -right))
    padding = (max(0, top), max(0, bottom)), (max(0, left), max(0, right))
    return x[:, rows, columns], padding


def max_pool(x: Array, geometry: Geometry) -> Array:
    """Returns the largest value of 3x3 pixels around each output's place; 0 where there is none."""
    x, padding = place(x, 3, geometry)
    pooled = nn.max_pool(x, window_shape=(3, 3), strides=geometry.strides, padding=padding)
    return jnp.where(pooled == -jnp.inf, 0, pooled)


def part_of(initializer: Initializer, features: int) -> Initializer:
    """Returns an initialiser that draws a kernel of all features and keeps the first of them.

    `fan_out_normal(c)` expects the fan of all c groups; a branch has only some of them.

    Args:
      initializer: of a whole kernel (kh, kw, c/g, f).
      features: f, of the whole kernel.
    """

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return initializer(key, (*shape[:-1], features), dtype)[..., : shape[-1]]

    return init
