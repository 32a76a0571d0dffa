"""MobileNetV1, static and CondConv.

Layers are numbered as in the paper: 1 is the first convolution, 2 to 14 the thirteen separable
blocks, 15 the classifier. "Begin layer 7" then reads: blocks 6 to 13 and the classifier.
"""

import functools
from collections.abc import Iterator
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from condconv_jax.models.layers import Layers
from condconv_jax.models.network import ForwardPass, Network, check_fraction
from condconv_jax.models.placement import Layout, make_groups
from condconv_jax.ops import Routing

# tensorflow/models, research/slim/nets/mobilenet_v1.py, min_depth; published widths have no fewer.
MIN_CHANNELS = 8
# Output channels at width 1.0 and stride of layers 2 to 14 (Howard et al. 2017, table 1).
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
# Blocks of 64, 128, 256, 512 and 1024 channels.
GROUPS = make_groups((1, 2, 2, 6, 2))


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and pointwise convolution, each with batch norm and ReLU6.

    Attributes:
      features: output channels.
      stride: of the depthwise convolution.
      layers: makes the layers.
      conditional: whether both convolutions are conditional.
      squeeze_excite: bottleneck of a squeeze-and-excitation at the end, over the block's
        channels; 0 for none.
    """

    features: int
    stride: int
    layers: Layers
    conditional: bool = False
    squeeze_excite: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Routing | None
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the block's output; both convolutions mix by the same routing."""
        layers = self.layers
        conv = functools.partial(layers.conv, conditional=self.conditional, routing=routing)
        x = conv(
            x,
            x.shape[-1],
            3,
            stride=self.stride,
            depthwise=True,
            name="depthwise",
        )
        x = nn.relu6(layers.norm(x, name="depthwise_bn"))
        x = conv(x, self.features, 1, name="pointwise")
        x = nn.relu6(layers.norm(x, name="pointwise_bn"))
        return layers.squeeze_excite(x, bottleneck(x, self.squeeze_excite), name="se")


class MobileNetV1(Network):
    """MobileNetV1 (Howard et al. 2017) with CondConv layers; published: from layer 7 on.

    Attributes, beside those of `Network`:
      squeeze_excite: bottleneck of a squeeze-and-excitation at the end of layers 1 to 14, over
        the layer's channels; 0 for none. The authors' response adds SE "in every layer" without
        saying where in it; the output of each layer is our reading.
      head_conv: whether a 1x1 convolution follows the blocks, as in timm's `mobilenetv1_100h`; it
        is then layer 15, and the classifier 16.

    `early_strides` are those of layers 1, 3 and 5; the block groups are of 64, 128, 256, 512 and
    1024 channels.

    Source: arXiv 1704.04861 (network), arXiv 1904.04971 section 4.1 (CondConv layers).
    """

    batch_norm_epsilon: float = 1e-5
    squeeze_excite: float = 0.0
    head_conv: bool = False

    PUBLISHED: ClassVar = {"begin_layer": 7}

    def layout(self) -> Layout:
        """Returns the numbered layers."""
        head = {15: ("head_conv", True)} if self.head_conv else {}
        return Layout(GROUPS, {**head, 15 + len(head): ("cond_classifier", self.cond_classifier)})

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b classes"]:
        """Returns logits, in at least float32.

        Args:
          images: normalised images.
          train: whether batch norm uses the batch's statistics and dropout is on.

        Raises:
          ValueError: for an option out of its range.
        """
        check_fraction("MobileNetV1", "squeeze_excite", self.squeeze_excite)
        step = ForwardPass(self, train=train)
        *_, (_, x) = separable_layers(self, step, images, self.squeeze_excite)
        if self.head_conv:
            x = step.convolve(x, 15, max(1024, scaled(1024, self.width)), 1, nn.relu6)
        return step.classify(x)


def separable_layers(
    network: Network, step: ForwardPass, images: Float[Array, "b h w c"], squeeze_excite: float
) -> Iterator[tuple[int, Float[Array, "b h_out w_out f"]]]:
    """Yields layers 1 to 14 by number, each with its output; called in a compact method.

    Args:
      network: whose options are taken.
      step: its forward pass.
      images: normalised images.
      squeeze_excite: as of `MobileNetV1`.
    """
    strides = strides_of(network)
    x = jnp.asarray(images, network.dtype)
    x = step.convolve(x, 1, scaled(32, network.width), 3, nn.relu6, stride=strides[1])
    x = step.layers.squeeze_excite(x, bottleneck(x, squeeze_excite), name="layer_1_se")
    yield 1, x
    for layer, (channels, _) in enumerate(BLOCKS, 2):
        block = SeparableBlock(
            scaled(channels, network.width),
            strides[layer],
            step.layers,
            layer in step.conditional,
            squeeze_excite,
            name=f"layer_{layer}",
        )
        x = block(x, step.route(x, layer))
        yield layer, x


def strides_of(network: Network) -> dict[int, int]:
    """Returns the stride of each of layers 1 to 14, `early_strides` among them."""
    strides = {layer: stride for layer, (_, stride) in enumerate(BLOCKS, 2)}
    return strides | dict(zip((1, 3, 5), network.early_strides, strict=True))


def scaled(channels: int, width: float) -> int:
    """Returns the channels of a network so many times as wide."""
    return max(MIN_CHANNELS, round(channels * width))


def bottleneck(x: Array, ratio: float) -> int:
    """Returns the width of a squeeze-and-excitation of x; 0 for none."""
    return max(1, round(x.shape[-1] * ratio)) if ratio else 0
