"""EfficientNet-B0 and B1, static and CondConv."""

from typing import ClassVar

import flax.linen as nn

from condconv_jax.models.inverted_residual import InvertedResidualNetwork, Stage, scale_channels


class EfficientNetB0(InvertedResidualNetwork):
    """EfficientNet-B0 (Tan and Le 2019); with experts, CondConv-EfficientNet-B0-4e and -8e.

    Layers: 1 is the first convolution, 2 to 17 the blocks, 18 the head convolution, 19 the
    classifier. As in the official code the last three block groups are CondConv, and SE, head and
    classifier are static; each block routes by its input, for all three of its convolutions. In
    training the official code also has dropout 0.25 and drop_path 0.2.

    Source: arXiv 1905.11946; tensorflow/tpu, models/official/efficientnet/condconv,
    efficientnet_condconv_builder.py.
    """

    cond_head: bool = False
    cond_classifier: bool = False
    batch_norm_momentum: float = 0.99

    PUBLISHED: ClassVar = {"cond_groups": (5, 6, 7)}
    STAGES: ClassVar = (
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
        Stage(4, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    )
    ACTIVATION: ClassVar = staticmethod(nn.swish)

    def head_channels(self) -> int:
        """Returns the channels of the head convolution."""
        return scale_channels(self.HEAD, self.width)


class EfficientNetB0Depth(EfficientNetB0):
    """EfficientNet-B0 of depth 1.1: with 8 experts, CondConv-EfficientNet-B0-8e-depth.

    Its layers are those of EfficientNet-B1; the official code trains it on images of 224 pixels.

    Source: tensorflow/tpu, efficientnet_condconv_builder.py (efficientnet-condconv-b0-8e-depth).
    """

    depth: float = 1.1


class EfficientNetB1(EfficientNetB0):
    """EfficientNet-B1: depth 1.1, for images of 240 pixels. Source: arXiv 1905.11946."""

    depth: float = 1.1
