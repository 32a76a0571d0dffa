"""MnasNet-A1 and A2, static and CondConv."""

import dataclasses
from typing import ClassVar

from condconv_jax.models.inverted_residual import InvertedResidualNetwork, Stage


class MnasNetA1(InvertedResidualNetwork):
    """MnasNet-A1 (Tan et al. 2019) with CondConv layers.

    Layers: 1 is the first convolution, 2 to 17 the blocks, 18 the head convolution, 19 the
    classifier. The authors' response makes the last two block groups CondConv: 322.2 M
    multiply-adds with 8 experts. With the head convolution, which the table's 325 M suggest, they
    are 325.5 M; that is the default here, `cond_head=False` the other reading. The classifier is
    static.

    Source: arXiv 1807.11626, figure 7 (A1); tensorflow/tpu, models/official/mnasnet.
    """

    cond_classifier: bool = False

    PUBLISHED: ClassVar = {"cond_groups": (6, 7)}
    STAGES: ClassVar = (
        Stage(1, 3, 1, 1, 16, squeeze_excite=False, skip=False),
        Stage(2, 3, 2, 6, 24, squeeze_excite=False),
        Stage(3, 5, 2, 3, 40),
        Stage(4, 3, 2, 6, 80, squeeze_excite=False),
        Stage(2, 3, 1, 6, 112),
        Stage(3, 5, 2, 6, 160),
        Stage(1, 3, 1, 6, 320, squeeze_excite=False),
    )


class MnasNetA2(MnasNetA1):
    """MnasNet-A2, as far as it can be known; the paper's authors compare CondConv with it.

    The MnasNet paper gives its accuracy, 340 M multiply-adds and 4.8 M parameters, and draws A1
    only. Assumed is A1 with one step of its search space, 200 instead of 160 channels in the sixth
    block group (5/4 of MobileNetV2's): of all single steps the one nearest to both figures, with
    338.6 M and 4.53 M. Good for a comparison of cost; weights trained as A2 will not fit it.

    Source: arXiv 1807.11626, table 1 and section 4.1 (search space).
    """

    STAGES: ClassVar = (
        *MnasNetA1.STAGES[:5],
        dataclasses.replace(MnasNetA1.STAGES[5], channels=200),
        MnasNetA1.STAGES[6],
    )
