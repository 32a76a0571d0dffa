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
    batch_norm_bias: float
    padding: int
    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float


# 32 -> 16, 8, 8, 4, 2 pixels: MobileNetV1's strides without the last of the early ones. No crops,
# for which the static network has no capacity: after 24 epochs 32.3 % with 4 pixels of padding,
# 34.2 % with 2 and 34.8 % without.
# After 24 epochs networks of either kind have 3 to 4 points to gain by as many more.
SMALL = Protocol(0.0625, (2, 2, 1), 1.0, 0, 48.0, 64, 0.2, 2e-4)
# 32 -> 16, 16, 16, 8, 4 pixels.
LARGE = Protocol(0.25, (2, 1, 1), 0.0, 4, 24.0, 256, 0.4, 2e-4)


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
    if "batch_norm_bias" in options:
        config.model.batch_norm_bias = protocol.batch_norm_bias
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
    # network of batch norms without shortcuts: some networks died without a limit. With it channels
    # of the narrow network did, 3 to 14 of 704, and which ones decided its accuracy: 33.4, 30.6 and
    # 25.5 % in three runs with 8 experts. A lower limit, one for each channel by its weights' norm
    # (`adaptive_clip`, then of all experts together and of the classifier too), half the rate and a
    # longer warm-up saved channels at the cost of accuracy or none. Biases that are first 1 save
    # all: the first gradients have a norm of 2, not 25.
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup_epochs = 1.0
    config.log_every = 250
    config.eval_every_epochs = 6.0
    config.checkpoint_every_epochs = 6.0 if comma else 1.0
    config.keep_last = 1
    config.keep_best = 0
    return config.lock()
