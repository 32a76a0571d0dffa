"""MobileNetV1 0.25x on the embedded 6,000 Fashion-MNIST images, static or CondConv.

  condconv train --config=configs/fashion_mnist/mobilenet_v1.py:static --workdir=runs/static
  condconv train --config=configs/fashion_mnist/mobilenet_v1.py:condconv --workdir=runs/condconv
"""

from condconv_jax.config import classification


def get_config(arg: str = "condconv"):
    config = classification()
    config.model.width = 0.25
    config.model.num_experts = {"static": 0, "condconv": 8}[arg]
    config.model.early_strides = (1, 2, 2)
    config.epochs = 6.0
    return config.lock()
