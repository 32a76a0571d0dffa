"""Small networks of every kind of block, and their conditional convolutions by hand."""

import dataclasses
import functools
from typing import Any

import jax

from condconv_jax import models

KEY = jax.random.key(0)
EXPERTS = 3
SMALL = {"num_experts": EXPERTS, "early_strides": (1, 1, 1)}


@dataclasses.dataclass(frozen=True)
class Conv:
    """A conditional convolution: its kernel without experts, and pixels on a side, in and out."""

    kernel: tuple[int, int, int, int]
    pixels: tuple[int, int]
    depthwise: bool = False

    @property
    def channels(self):
        return self.kernel[3] if self.depthwise else self.kernel[2]


# Images of 16 pixels. Each network's conditional convolutions by hand, and the channels that the
# routers of its conditional layers pool.
NETWORKS = {
    # 1/16 of 512 and 1024 channels; layers 7 and 13 have a stride.
    "mobilenet_v1": (
        {"width": 1 / 16, "begin_layer": 13, "cond_classifier": False},
        {
            "layer_13/depthwise": Conv((3, 3, 1, 32), (8, 4), depthwise=True),
            "layer_13/pointwise": Conv((1, 1, 32, 64), (4, 4)),
            "layer_14/depthwise": Conv((3, 3, 1, 64), (4, 4), depthwise=True),
            "layer_14/pointwise": Conv((1, 1, 64, 64), (4, 4)),
        },
        {13: 32, 14: 64},
    ),
    # One block of each group. The seventh: 19 channels become 24, since 16 are below 90 %; 6 times
    # as many inside.
    "efficientnet_b0": (
        {"width": 0.1, "depth": 0.1, "cond_groups": (7,)},
        {
            "layer_8/expand": Conv((1, 1, 24, 144), (4, 4)),
            "layer_8/depthwise": Conv((3, 3, 1, 144), (4, 4), depthwise=True),
            "layer_8/project": Conv((1, 1, 144, 32), (4, 4)),
        },
        {8: 24},
    ),
    # A tenth of 4 * 256 channels in, of 512 inside, four times as many out.
    "resnet50": (
        {"width": 0.1, "depth": 0.1},
        {
            "layer_5/reduce": Conv((1, 1, 104, 51), (8, 8)),
            "layer_5/spatial": Conv((3, 3, 51, 51), (8, 4)),
            "layer_5/expand": Conv((1, 1, 51, 204), (4, 4)),
            "layer_5/projection": Conv((1, 1, 104, 204), (8, 4)),
        },
        {5: 104},
    ),
}
SIZE = 16


@functools.cache
def small_network(name: str, kind: str = "condconv", **options: Any) -> Any:
    """A network of `NETWORKS` with a kind of conditional layers."""
    return models.create(
        name, num_classes=5, **SMALL | NETWORKS[name][0] | {"cond_layer": kind} | options
    )
