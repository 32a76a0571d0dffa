r"""MobileNetV2 1.0x on ImageNet, static or CondConv with 8 experts.

  condconv train --config=configs/imagenet/mobilenet_v2.py:condconv \
      --config.data.path=DATA_DIR --workdir=runs/v2

The paper's top-1: static 71.6 %, CondConv 74.6 % (table 1). Not run by us: ImageNet was not at
hand. The data as in mobilenet_v1.py.
"""

from condconv_jax.config import imagenet, regularize_as_condconv, train_as_kornblith
from condconv_jax.names import unknown_name

NUM_EXPERTS = {"static": 0, "condconv": 8}


def get_config(arg: str = "condconv"):
    if arg not in NUM_EXPERTS:
        raise unknown_name("configs/imagenet/mobilenet_v2.py", "network", arg, NUM_EXPERTS)
    config = imagenet("mobilenet_v2")
    train_as_kornblith(config)
    config.model.num_experts = NUM_EXPERTS[arg]
    if NUM_EXPERTS[arg]:
        regularize_as_condconv(config)
    return config.lock()
