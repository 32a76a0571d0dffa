r"""The protocol under which experiments/claims.py tests the paper's claims on CIFAR-100.

  condconv train --config=configs/cifar100/claims.py --config.model.num_experts=16 \
      --config.data.path=FOLDER --workdir=runs/experts16

FOLDER is that of configs/cifar100/mobilenet_v1.py. The argument is a network of
`models.names("classification")`, by default mobilenet_v1, static until `num_experts` is set.
"""

from condconv_jax import models
from condconv_jax.config import classification


def get_config(arg: str = "mobilenet_v1"):
    options = models.default_options(arg)
    config = classification(arg)
    if "width" in options:
        config.model.width = 0.125
    if "early_strides" in options:
        # 32 -> 16, 8, 8, 4, 2 pixels: as on 224 pixels, but without the last two maps.
        config.model.early_strides = (2, 2, 1)
    config.data.name = "npz"
    config.data.path = "data/cifar100"
    config.data.image_size = 32
    config.data.statistics = "cifar100"
    config.data.threads = 1
    config.batch_size = 128
    config.epochs = 30.0
    config.schedule.learning_rate = 0.2
    config.schedule.warmup_epochs = 1.0
    config.log_every = 100
    config.eval_every_epochs = 5.0
    config.checkpoint_every_epochs = 1.0
    config.keep_last = 1
    config.keep_best = 0
    return config.lock()
