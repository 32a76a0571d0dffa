r"""MnasNet-A1 on ImageNet, static or CondConv with 8 experts.

  condconv train --config=configs/imagenet/mnasnet_a1.py:condconv \
      --config.data.path=DATA_DIR --workdir=runs/mnasnet

The paper's top-1: static 74.9 %, CondConv 76.2 % (table 1). The recipe is MnasNet's own, which is
EfficientNet's without stochastic depth and in batches of 1024, 350 epochs are then 437,898 steps
(tensorflow/tpu, models/official/mnasnet/mnasnet_main.py, flags). Not run by us: ImageNet was not at
hand. The data as in mobilenet_v1.py.
"""

from condconv_jax.config import imagenet, train_as_efficientnet
from condconv_jax.names import unknown_name

NUM_EXPERTS = {"static": 0, "condconv": 8}


def get_config(arg: str = "condconv"):
    if arg not in NUM_EXPERTS:
        raise unknown_name("configs/imagenet/mnasnet_a1.py", "network", arg, NUM_EXPERTS)
    config = imagenet("mnasnet_a1")
    train_as_efficientnet(config)
    config.batch_size = 1024
    config.model.num_experts = NUM_EXPERTS[arg]
    return config.lock()
