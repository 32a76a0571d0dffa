"""MobileNetV2, static and CondConv."""

from typing import ClassVar

import flax.linen as nn

from condconv_jax.models.inverted_residual import InvertedResidualNetwork, Stage, scale_channels


class MobileNetV2(InvertedResidualNetwork):
    """MobileNetV2 (Sandler et al. 2018) with CondConv layers.

    Layers: 1 is the first convolution, 2 to 18 the blocks, 19 the head convolution, 20 the
    classifier. The paper does not say which of them are CondConv. Its 329 M multiply-adds fit all
    17 blocks, head convolution and classifier (begin_layer=2: 328.5 M), which is what we build;
    another reading of the text, the last six blocks and the classifier (begin_layer=13,
    cond_head=False), gives 322.9 M.

    `squeeze_excite` is 0 by default: the network as published has none. Where it is used, it
    follows the depthwise convolution, over the channels of the block's input, as in MnasNet.

    Attributes, beside those of `InvertedResidualNetwork`:
      fix_ends: keep the channels of first and head convolution and the number of blocks in the
        first and last block group whatever width and depth are, as timm's `mobilenetv2_110d` and
        `_120d` do.

    Source: arXiv 1801.04381, table 2.
    """

    squeeze_excite: float = 0.0
    fix_ends: bool = False

    PUBLISHED: ClassVar = {"begin_layer": 2}
    STAGES: ClassVar = (
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(3, 3, 2, 6, 32),
        Stage(4, 3, 2, 6, 64),
        Stage(3, 3, 1, 6, 96),
        Stage(3, 3, 2, 6, 160),
        Stage(1, 3, 1, 6, 320),
    )
    ACTIVATION: ClassVar = staticmethod(nn.relu6)

    def stem_channels(self) -> int:
        """Returns the channels of the first convolution."""
        return self.STEM if self.fix_ends else super().stem_channels()

    def head_channels(self) -> int:
        """Returns the channels of the head convolution, which narrow networks keep at 1280."""
        return self.HEAD if self.fix_ends else max(self.HEAD, scale_channels(self.HEAD, self.width))

    def repeats(self, stage: Stage) -> int:
        """Returns the blocks of a block group."""
        if self.fix_ends and stage in (self.STAGES[0], self.STAGES[-1]):
            return stage.repeats
        return super().repeats(stage)
