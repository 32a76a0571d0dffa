r"""MobileNetV1 on ImageNet: any width, 1 to 32 experts.

  condconv train --config=configs/imagenet/mobilenet_v1.py:0.25,32 \
      --config.data.path=DATA_DIR --workdir=runs/v1_025_32

WIDTH,EXPERTS: widths 0.25, 0.5, 0.75 and 1.0 (and any between), experts 1 (static) to 32.

The paper's top-1: 1.0 static 71.9 %, with 8 experts 73.7 % (table 1); 0.25 static 50.0 %, with 32
experts 62.0 % (table 3). Not run by us: ImageNet was not at hand. One epoch is 313 steps of 4096
images; --config.batch_size=1024 scales the learning rate with it.

DATA_DIR holds imagenet2012 as prepared by TFDS, ArrayRecord or TFRecord. Of a folder (or zip) of
train/CLASS/*.JPEG and val/CLASS/*.JPEG: `--config.data.name=folder --config.data.eval=val`.
"""

from condconv_jax.config import imagenet, regularize_as_condconv, train_as_kornblith


def get_config(arg: str = "1.0,8"):
    width, _, experts = arg.partition(",")
    try:
        width, experts = float(width), int(experts or 1)
    except ValueError as error:
        raise ValueError(
            f"configs/imagenet/mobilenet_v1.py: {arg!r}; pass WIDTH,EXPERTS, such as 0.25,32"
        ) from error
    config = imagenet("mobilenet_v1")
    train_as_kornblith(config)
    config.model.width = width
    config.model.num_experts = experts if experts > 1 else 0
    if experts > 1:
        regularize_as_condconv(config)
    return config.lock()
