"""ResNet-50 v1.5, static and CondConv."""

import functools
import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from condconv_jax.models.layers import Layers
from condconv_jax.models.network import ForwardPass, Network
from condconv_jax.models.placement import Layout, make_groups
from condconv_jax.ops import Routing

# Inner channels and stride of the four block groups (He et al. 2016, table 1: conv2_x to conv5_x).
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
REPEATS = (3, 4, 6, 3)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut; all conditional ones mix by one routing.

    Attributes:
      features: f, channels inside; four times as many leave the block.
      stride: of the 3x3 convolution (v1.5) and the projection.
      layers: makes the layers.
      conditional: whether the convolutions are conditional.
      cond_projection: whether that includes the projection of the shortcut.
    """

    features: int
    stride: int
    layers: Layers
    conditional: bool = False
    cond_projection: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Routing | None
    ) -> Float[Array, "b h_out w_out 4*f"]:
        """Returns the block's output."""
        layers = self.layers
        conv = functools.partial(layers.conv, conditional=self.conditional, routing=routing)
        y = conv(x, self.features, 1, name="reduce")
        y = nn.relu(layers.norm(y, name="reduce_bn"))
        y = conv(y, self.features, 3, stride=self.stride, name="spatial")
        y = nn.relu(layers.norm(y, name="spatial_bn"))
        y = conv(y, self.features * EXPANSION, 1, name="expand")
        # A block begins as the identity, which steadies large batches (arXiv 1706.02677, 5.1).
        y = layers.norm(y, name="expand_bn", zero=True, linear=True)
        if x.shape != y.shape:
            project = conv if self.cond_projection else layers.conv
            x = project(x, y.shape[-1], 1, stride=self.stride, name="projection")
            x = layers.norm(x, name="projection_bn", linear=True)
        return nn.relu(x + y)


class ResNet50(Network):
    """ResNet-50 v1.5 with CondConv layers.

    v1.5: the 3x3 convolution of a block has its stride, not the first 1x1. Layers: 1 is the first
    convolution, 2 to 17 the blocks, 18 the classifier. The paper does not say which are CondConv;
    its 120 M additional multiply-adds at 8 experts fit two readings: conv5_x with its projection
    and a static classifier (119.5 M, what we build), or conv5_x without the projection, and the
    classifier (119.1 M: cond_projection=False, cond_classifier=True). All convolutions of a block
    share one routing, of the block's input, as in MobileNetV1 and EfficientNet.

    With many experts it needs regularisation to gain from them: `routing.noise` "shake" or
    "drop" (`ops.shake_experts`, `ops.drop_experts`).

    Attributes, beside those of `Network`:
      depth: multiplies the blocks of every group, rounded up.
      cond_projection: whether the projection of a CondConv block's shortcut is CondConv too.

    `early_strides` are those of the first convolution, the max pooling and conv3_x; images are
    padded as in PyTorch by default, which is also what the TensorFlow models' fixed padding does.

    Source: arXiv 1512.03385, table 1; v1.5: tensorflow/models, official/resnet; arXiv 1904.04971,
    table 1, and the authors' response.
    """

    cond_classifier: bool = False
    padding: str = "SYMMETRIC"
    batch_norm_epsilon: float = 1e-5
    depth: float = 1.0
    cond_projection: bool = True

    PUBLISHED: ClassVar = {"cond_groups": (4,)}

    def layout(self) -> Layout:
        """Returns the numbered layers."""
        groups = make_groups(tuple(math.ceil(self.depth * repeats) for repeats in REPEATS))
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
        if self.depth <= 0:
            raise ValueError(f"ResNet50: depth is {self.depth}; pass a positive number")
        step = ForwardPass(self, train=train)
        stem_stride, pool_stride, third_stride = self.early_strides
        x = jnp.asarray(images, self.dtype)
        x = step.convolve(x, 1, self._channels(64), 7, nn.relu, stride=stem_stride)
        x = step.layers.max_pool(x, 3, pool_stride)
        for index, group in enumerate(self.layout().groups):
            features, stride = STAGES[index]
            for layer in group:
                first = layer == group[0]
                block = Bottleneck(
                    self._channels(features),
                    (third_stride if index == 1 else stride) if first else 1,
                    step.layers,
                    layer in step.conditional,
                    self.cond_projection,
                    name=f"layer_{layer}",
                )
                x = block(x, step.route(x, layer))
        return step.classify(x)

    def _channels(self, channels: int) -> int:
        return max(1, round(channels * self.width))
