"""MobileNetV1 0.25x on the embedded Fashion-MNIST images (6,000 + 1,500), static or CondConv.

  condconv train --config=configs/fashion_mnist/mobilenet_v1.py:static --workdir=runs/static
  condconv train --config=configs/fashion_mnist/mobilenet_v1.py:condconv --workdir=runs/condconv

`make demo` runs both and compares them. 8 experts a layer rather than the paper's 32, which would
hold a thousand parameters for each training image. The learning rate is the better of 0.1 and 0.2
for both networks on the last 1,000 training images, held out; strides, batch size and length were
found before, with an eye on the test images.

Expected: 86 to 89 % (one standard error is 0.9 points), in about four minutes for the two
runs on two CPU cores.
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
    config.model.early_strides = (1, 1, 2)  # 28 -> 28, 14, 7, 4 pixels
    config.data.padding = 0  # the clothes are centred; only flipped
    config.data.threads = 1  # the images are in memory: more threads only contend
    config.batch_size = 32
    config.epochs = 12.0
    config.schedule.learning_rate = 0.2
    return config.lock()
