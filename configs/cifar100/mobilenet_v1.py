r"""MobileNetV1 0.25x on CIFAR-100, static or CondConv.

  condconv train --config=configs/cifar100/mobilenet_v1.py:condconv \
      --config.data.path=FOLDER --workdir=runs/cifar100

FOLDER holds `train.npz` and `test.npz`, each with arrays `x` (n, 32, 32, 3) uint8 and `y` (n,), as
experiments/claims_data.py makes them of the published files. Of
TFDS' `cifar100`, prepared as ArrayRecord: `--config.data.name=tfds --config.data.dataset=cifar100`,
and its data_dir as the path.

32x32 images vanish under MobileNetV1's stride of 32; this one's is 8. docs/results.md has the
accuracies measured, with hardware and time.
"""

from condconv_jax.config import classification
from condconv_jax.names import unknown_name

NUM_EXPERTS = {"static": 0, "condconv": 8}


def get_config(arg: str = "condconv"):
    if arg not in NUM_EXPERTS:
        raise unknown_name("configs/cifar100/mobilenet_v1.py", "network", arg, NUM_EXPERTS)
    config = classification()
    config.model.width = 0.25
    config.model.num_experts = NUM_EXPERTS[arg]
    config.model.early_strides = (1, 1, 2)  # 32 -> 32, 16, 8, 4 pixels
    config.data.name = "npz"
    config.data.path = "data/cifar100"
    config.data.image_size = 32
    config.data.statistics = "cifar100"
    config.batch_size = 64
    config.epochs = 30.0
    config.schedule.learning_rate = 0.2
    return config.lock()
