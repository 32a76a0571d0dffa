r"""Any trained, converted or upcycled network on your own images: a folder for each class.

  condconv convert --from-timm=FILE.safetensors --network=tf_efficientnet_cc_b0_4e --workdir=runs/cc
  condconv train --config=configs/folder/finetune.py:runs/cc --config.data.path=PICTURES \
      --workdir=runs/mine

The argument is the work directory to start from; the network, its options and how its images are
sized and normalised are taken from there, how it was trained is not. PICTURES/train/CLASS/*.jpg and
PICTURES/val/CLASS/*.jpg; without a `val` folder, set `--config.data.train='train[:90%]'
--config.data.eval='train[90%:]'`. Other classes get a new classifier.

The learning rate is a tenth of what training from nothing takes, and the batch small: a place to
start from, not the result of a search.
"""

from condconv_jax.config import classification, from_run

# Of the images that the network was trained on.
IMAGES = ("image_size", "statistics", "interpolation", "central_fraction")


def get_config(arg: str = ""):
    if not arg:
        raise ValueError("configs/folder/finetune.py: no run; pass finetune.py:WORKDIR")
    run = from_run(arg)
    config = classification(run.model.name)
    config.init_from = run.init_from
    config.model = run.model
    # A batch may be smaller than the groups of a large one.
    config.model.batch_norm_group = 0
    for key in IMAGES:
        config.data[key] = run.data[key]
    config.data.name = "folder"
    config.data.path = "pictures"
    config.data.train = "train"
    config.data.eval = "val"
    config.data.crop = "resized"
    config.batch_size = 32
    config.epochs = 10.0
    config.schedule.learning_rate = 0.01
    return config.lock()
