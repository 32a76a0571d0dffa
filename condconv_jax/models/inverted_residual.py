"""The block of MobileNetV2, MnasNet and EfficientNet, and the network made of it."""

import dataclasses
import functools
import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from condconv_jax.models.layers import Layers
from condconv_jax.models.network import Activation, ForwardPass, Network, check_fraction
from condconv_jax.models.placement import Layout, make_groups
from condconv_jax.ops import Routing


@dataclasses.dataclass(frozen=True)
class Stage:
    """A block group.

    Attributes:
      repeats: number of blocks.
      kernel_size: of the depthwise convolutions.
      stride: of the first block.
      expansion: channels inside a block over those of its input.
      channels: of the output, at width 1.
      squeeze_excite: whether there is squeeze-and-excitation.
      skip: whether a block of equal input and output shapes adds its input.
    """

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int
    squeeze_excite: bool = True
    skip: bool = True


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, squeeze-and-excite, project 1x1; each but SE with batch norm.

    Without expansion there is no first convolution. The projection has no activation. All three
    convolutions mix by one routing, that of the block's input; SE is static.

    Attributes:
      features: output channels.
      stage: the block group; its `repeats`, `stride` and `channels` are not read.
      stride: of the depthwise convolution.
      layers: makes the layers.
      activation: after the first two convolutions and inside SE.
      conditional: whether the convolutions are conditional.
      squeeze_excite: bottleneck of SE over the channels of the block's input; 0 for none.
      drop_path: rate at which training skips the block, where it adds its input.

    Source: arXiv 1801.04381, section 3; SE: arXiv 1807.11626, section 4.
    """

    features: int
    stage: Stage
    stride: int
    layers: Layers
    activation: Activation
    conditional: bool = False
    squeeze_excite: float = 0.0
    drop_path: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Routing | None
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the block's output."""
        layers, stage, c = self.layers, self.stage, x.shape[-1]
        conv = functools.partial(layers.conv, conditional=self.conditional, routing=routing)
        y = x
        if stage.expansion != 1:
            y = conv(y, c * stage.expansion, 1, name="expand")
            y = self.activation(layers.norm(y, name="expand_bn"))
        y = conv(
            y,
            y.shape[-1],
            stage.kernel_size,
            stride=self.stride,
            depthwise=True,
            name="depthwise",
        )
        y = self.activation(layers.norm(y, name="depthwise_bn"))
        if stage.squeeze_excite and self.squeeze_excite:
            # Over the input's channels: those inside would make the bottleneck six times as wide.
            width = max(1, int(c * self.squeeze_excite))
            y = layers.squeeze_excite(y, width, activation=self.activation, name="se")
        y = layers.norm(conv(y, self.features, 1, name="project"), name="project_bn", linear=True)
        if not stage.skip or x.shape != y.shape:
            return y
        return x + layers.drop_path(y, self.drop_path)


class InvertedResidualNetwork(Network):
    """A first convolution, block groups of inverted residuals, a head convolution, a classifier.

    Attributes, beside those of `Network`:
      depth: multiplies the blocks of every group, rounded up.
      cond_head: whether the head convolution is among the CondConv layers (`only_layer` does not
        ask).
      squeeze_excite: bottleneck of squeeze-and-excitation over the channels of its block's input,
        in the block groups that have it; 0 for none.
      drop_path: rate at which training would skip a block after the last; of n blocks the i-th is
        skipped at (i - 1) / n of it, as in the official EfficientNet code.

    `early_strides` are those of the first convolution and the first two block groups with a stride.
    """

    depth: float = 1.0
    cond_head: bool = True
    squeeze_excite: float = 0.25
    drop_path: float = 0.0

    STAGES: ClassVar[tuple[Stage, ...]] = ()
    ACTIVATION: ClassVar[Activation] = staticmethod(nn.relu)
    STEM: ClassVar[int] = 32
    HEAD: ClassVar[int] = 1280

    def layout(self) -> Layout:
        """Returns the numbered layers."""
        groups = make_groups(tuple(self.repeats(stage) for stage in self.STAGES))
        head = groups[-1][-1] + 1
        return Layout(
            groups,
            {
                head: ("cond_head", self.cond_head),
                head + 1: ("cond_classifier", self.cond_classifier),
            },
        )

    def stem_channels(self) -> int:
        """Returns the channels of the first convolution."""
        return scale_channels(self.STEM, self.width)

    def head_channels(self) -> int:
        """Returns the channels of the head convolution."""
        return self.HEAD

    def repeats(self, stage: Stage) -> int:
        """Returns the blocks of a block group."""
        return math.ceil(self.depth * stage.repeats)

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b classes"]:
        """Returns logits, in at least float32.

        Args:
          images: normalised images.
          train: whether batch norm uses the batch's statistics, and dropout and drop path are on.

        Raises:
          ValueError: for an option out of its range.
        """
        self._check_own()
        step, activation = ForwardPass(self, train=train), type(self).ACTIVATION
        strides = iter(self.early_strides)
        x = jnp.asarray(images, self.dtype)
        x = step.convolve(x, 1, self.stem_channels(), 3, activation, stride=next(strides))
        groups = self.layout().groups
        blocks = sum(map(len, groups))
        for stage, group in zip(self.STAGES, groups, strict=True):
            first_stride = next(strides, stage.stride) if stage.stride > 1 else 1
            for layer in group:
                block = InvertedResidual(
                    scale_channels(stage.channels, self.width),
                    stage,
                    first_stride if layer == group[0] else 1,
                    step.layers,
                    activation,
                    layer in step.conditional,
                    self.squeeze_excite,
                    self.drop_path * (layer - 2) / blocks,
                    name=f"layer_{layer}",
                )
                x = block(x, step.route(x, layer))
        x = step.convolve(x, groups[-1][-1] + 1, self.head_channels(), 1, activation)
        return step.classify(x)

    def _check_own(self) -> None:
        where = type(self).__name__
        check_fraction(where, "squeeze_excite", self.squeeze_excite)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"{where}: drop_path is {self.drop_path}; pass 0 (none) to below 1")
        if self.depth <= 0:
            raise ValueError(f"{where}: depth is {self.depth}; pass a positive number")


def scale_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Returns channels * width rounded to a multiple of 8, at least 8 and 90 % of the product.

    Source: tensorflow/models, research/slim/nets/mobilenet (`_make_divisible`), and the
    EfficientNet code after it.
    """
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded
