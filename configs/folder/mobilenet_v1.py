r"""CondConv-MobileNetV1 on your own images: a folder with a folder for each class.

  condconv train --config=configs/folder/mobilenet_v1.py --config.data.path=PICTURES \\
      --config.init_from=runs/demo/condconv --workdir=runs/mine

PICTURES/train/CLASS/*.jpg and PICTURES/val/CLASS/*.jpg; without a `val` folder, set
`--config.data.train='train[:90%]' --config.data.eval='train[90%:]'`. The network is that of the
checkpoint in `init_from`, so change its options together; "" trains from nothing.
"""

from condconv_jax.config import classification


def get_config():
    config = classification()
    config.model.width = 0.25
    config.model.num_experts = 8
    config.model.early_strides = (1, 2, 2)
    config.data.name = "folder"
    config.data.path = "pictures"
    config.data.eval = "val"
    config.data.image_size = 64
    config.data.crop = "resized"
    config.data.statistics = "imagenet"
    config.batch_size = 64
    config.epochs = 20.0
    config.schedule.learning_rate = 0.02
    return config.lock()
