r"""CondConv-MobileNetV1 on your own images: a folder with a folder for each class.

  condconv train --config=configs/folder/mobilenet_v1.py --config.data.path=PICTURES \\
      --config.init_from=runs/demo/condconv --workdir=runs/mine

PICTURES/train/CLASS/*.jpg and PICTURES/val/CLASS/*.jpg; without a `val` folder, set
`--config.data.train='train[:90%]' --config.data.eval='train[90%:]'`. The options of the network
have to be those of the checkpoint in `init_from`; what differs without showing in a shape, such
as strides or the statistics that normalise, is named when training starts. Without `init_from`
it trains from nothing.
"""

from condconv_jax.config import classification


def get_config(arg: str = ""):
    del arg
    config = classification()
    config.model.width = 0.25
    config.model.num_experts = 8
    config.model.early_strides = (1, 1, 2)  # as in the demo
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
