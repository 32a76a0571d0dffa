"""The ResNets for images of 32 pixels, static and CondConv."""

import functools
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from condconv_jax.models.layers import Layers
from condconv_jax.models.network import ForwardPass, Network
from condconv_jax.models.placement import Layout, make_groups
from condconv_jax.ops import Routing

CHANNELS = (16, 32, 64)  # of the three block groups


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; all conditional ones mix by one routing.

    Attributes:
      features: output channels.
      stride: of the first convolution and the projection.
      layers: makes the layers.
      conditional: whether the convolutions are conditional, the projection among them.
    """

    features: int
    stride: int
    layers: Layers
    conditional: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Routing | None
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the block's output."""
        layers = self.layers
        conv = functools.partial(layers.conv, conditional=self.conditional, routing=routing)
        y = conv(x, self.features, 3, stride=self.stride, name="first")
        y = nn.relu(layers.norm(y, name="first_bn"))
        y = conv(y, self.features, 3, name="second")
        # A block begins as the identity, as in ResNet-50.
        y = layers.norm(y, name="second_bn", zero=True, linear=True)
        if x.shape != y.shape:
            x = conv(x, self.features, 1, stride=self.stride, name="projection")
            x = layers.norm(x, name="projection_bn", linear=True)
        return nn.relu(x + y)


class ResNetCifar(Network):
    """ResNet-20 of CIFAR, or another of 6n + 2 layers, with CondConv layers.

    A stand-in for ResNet-50 where images are small: layer 1 is the first convolution, then come
    three groups of n blocks, last the classifier. CondConv layers are by default, as in
    `ResNet50`, the blocks of the last group. Shortcuts that change the shape are projections
    (option B of the paper; its CIFAR networks pad with zeros, which has no kernel to mix).

    Attributes, beside those of `Network`:
      blocks: n of each group; 3 is ResNet-20, 9 ResNet-56.

    `early_strides` are those of the first convolution and of the second and third group.

    Source: arXiv 1512.03385, section 4.2.
    """

    cond_classifier: bool = False
    early_strides: tuple[int, int, int] = (1, 2, 2)
    padding: str = "SYMMETRIC"
    batch_norm_epsilon: float = 1e-5
    blocks: int = 3

    PUBLISHED: ClassVar = {"cond_groups": (3,)}
    IMAGE_SIZE: ClassVar[int] = 32

    def layout(self) -> Layout:
        """Returns the numbered layers."""
        if self.blocks < 1:
            raise ValueError(f"ResNetCifar: blocks is {self.blocks}; pass at least 1")
        groups = make_groups((self.blocks,) * len(CHANNELS))
        return Layout(groups, {groups[-1][-1] + 1: ("cond_classifier", self.cond_classifier)})

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b classes"]:
        """Returns logits, in at least float32.

        Args:
          images: normalised images.
          train: whether batch norm uses the batch's statistics, and dropout and noise are on.

        Raises:
          ValueError: for an option out of its range.
        """
        step = ForwardPass(self, train=train)
        x = jnp.asarray(images, self.dtype)
        x = step.convolve(
            x, 1, self._channels(CHANNELS[0]), 3, nn.relu, stride=self.early_strides[0]
        )
        for index, group in enumerate(self.layout().groups):
            for layer in group:
                block = BasicBlock(
                    self._channels(CHANNELS[index]),
                    self.early_strides[index] if index and layer == group[0] else 1,
                    step.layers,
                    layer in step.conditional,
                    name=f"layer_{layer}",
                )
                x = block(x, step.route(x, layer))
        return step.classify(x)

    def _channels(self, channels: int) -> int:
        return max(1, round(channels * self.width))
