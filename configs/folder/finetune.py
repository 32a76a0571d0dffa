r"""Any trained, converted or upcycled network on your own images: a folder for each class.

  condconv convert --from-timm=FILE.safetensors --network=tf_efficientnet_cc_b0_4e --workdir=runs/cc
  condconv train --config=configs/folder/finetune.py:runs/cc --config.data.path=PICTURES \
      --workdir=runs/mine

The argument is the work directory to start from; the network, its options and how its images are
normalised are taken from there. PICTURES/train/CLASS/*.jpg and PICTURES/val/CLASS/*.jpg; without a
`val` folder, set `--config.data.train='train[:90%]' --config.data.eval='train[90%:]'`. Other
classes get a new classifier.

The learning rate is a tenth of what training from nothing takes, and the batch small: a place to
start from, not the result of a search.
"""

from condconv_jax.config import from_run


def get_config(arg: str = ""):
    if not arg:
        raise ValueError("configs/folder/finetune.py: no run; pass finetune.py:WORKDIR")
    config = from_run(arg)
    config.data.name = "folder"
    config.data.path = "pictures"
    config.data.train = "train"
    config.data.eval = "val"
    config.data.crop = "resized"
    config.batch_size = 32
    config.epochs = 10.0
    config.schedule.learning_rate = 0.01
    return config.lock()
