"""MobileNetV1 0.25x on the embedded Fashion-MNIST images (6,000 + 1,500), static or CondConv.

  condconv train --config=configs/fashion_mnist/mobilenet_v1.py:static --workdir=runs/static
  condconv train --config=configs/fashion_mnist/mobilenet_v1.py:condconv --workdir=runs/condconv

`make demo` runs both and compares them. 8 experts a layer rather than the paper's 32: 32 would
hold 1,000 parameters for each training image.
"""

from condconv_jax.config import classification
from condconv_jax.names import unknown_name

NUM_EXPERTS = {"static": 0, "condconv": 8}


def get_config(arg: str = "condconv"):
    if arg not in NUM_EXPERTS:
        raise unknown_name("configs/fashion_mnist/mobilenet_v1.py", "network", arg, NUM_EXPERTS)
    config = classification()
    config.model.width = 0.25
    config.model.num_experts = NUM_EXPERTS[arg]
    config.model.early_strides = (1, 2, 2)  # 28 -> 28, 14, 7, 4, 2 pixels
    config.batch_size = 64
    config.epochs = 12.0
    config.eval_every_epochs = 1.0
    config.data.padding = 2
    config.data.threads = 1  # the images are in memory: more threads only contend
    return config.lock()
