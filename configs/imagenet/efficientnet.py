r"""EfficientNet-B0 and CondConv-EfficientNet-B0 on ImageNet, by the official recipe.

  condconv train --config=configs/imagenet/efficientnet.py:b0-8e \
      --config.data.path=DATA_DIR --workdir=runs/b0_8e

b0 (the paper's top-1: 77.2 %), b0-4e (77.8 %), b0-8e (78.3 %), b0-8e-depth (79.5 %; the last three
of the official code's README). Not run by us: ImageNet was not at hand. The data as in
mobilenet_v1.py. Whether the published runs used AutoAugment is not said with the code; B0's own
77.3 % there is that of AutoAugment.
"""

from condconv_jax.config import imagenet, train_as_efficientnet
from condconv_jax.names import unknown_name

# Network and experts; efficientnet_condconv_builder.py of the official code.
VARIANTS = {
    "b0": ("efficientnet_b0", 0),
    "b0-4e": ("efficientnet_b0", 4),
    "b0-8e": ("efficientnet_b0", 8),
    "b0-8e-depth": ("efficientnet_b0_depth", 8),
}


def get_config(arg: str = "b0-8e"):
    if arg not in VARIANTS:
        raise unknown_name("configs/imagenet/efficientnet.py", "variant", arg, VARIANTS)
    model, num_experts = VARIANTS[arg]
    config = imagenet(model)
    train_as_efficientnet(config)
    config.model.num_experts = num_experts
    config.model.drop_path = 0.2
    config.data.augment = "autoaugment"
    if num_experts:
        config.model.dropout = 0.25
        config.data.statistics = "efficientnet_condconv"
    return config.lock()
