r"""Every network on CIFAR-100, static or CondConv.

  condconv train --config=configs/cifar100/networks.py:efficientnet_b0 \
      --config.data.path=FOLDER --workdir=runs/cifar100

FOLDER is that of configs/cifar100/mobilenet_v1.py. The argument is one of
`models.names("classification")`, with 8
experts in the layers in which its publication has them; "efficientnet_b0,static" is its static
twin. Comparators: `--config.model.cond_layer=dynamic` (odconv, dynamic_filter, deformable,
parallel_kernels), or the network msdnet, which has no experts.

32x32 images vanish under a total stride of 32; here it is 8. Widths are those of ImageNet. A recipe
to begin with: nothing was tuned, no accuracy measured.
"""

from condconv_jax import models
from condconv_jax.config import classification


def get_config(arg: str = "efficientnet_b0"):
    name, comma, kind = arg.partition(",")
    if comma and kind != "static":
        raise ValueError(f"configs/cifar100/networks.py: {arg!r}; pass NAME or NAME,static")
    options = models.default_options(name)
    config = classification(name)
    if "early_strides" in options:
        config.model.early_strides = (1, 1, 2)  # 32 -> 4 pixels at the end
    if "num_experts" in options:
        config.model.num_experts = 0 if kind else 8
    config.data.name = "npz"
    config.data.path = "data/cifar100"
    config.data.image_size = 32
    config.data.statistics = "cifar100"
    config.batch_size = 64
    config.epochs = 30.0
    config.schedule.learning_rate = 0.1
    return config.lock()
