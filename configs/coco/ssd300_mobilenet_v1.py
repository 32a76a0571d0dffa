r"""SSD300 on MobileNetV1 for COCO 2017, at the paper's widths, static or with experts.

  condconv train --config=configs/coco/ssd300_mobilenet_v1.py:1.0,8 \
      --config.data.path=COCO --workdir=runs/ssd_8

WIDTH,EXPERTS: widths 0.5, 0.75 and 1.0 (and any between), experts 1 (static) or more. COCO holds
`annotations/instances_train2017.json` and `instances_val2017.json`, and the pictures in `train2017`
and `val2017`. As prepared by TFDS: `--config.data.name=tfds --config.data.dataset=coco/2017
--config.data.train=train --config.data.eval=validation`, and the data_dir as the path.

The paper's mAP, static and with 8 experts (table 2): 0.5x 14.4 and 18.0, 0.75x 18.2 and 21.0, 1.0x
20.3 and 22.4. Not run by us: COCO was not at hand. One epoch is 58 steps of 2048 pictures;
--config.batch_size=256 scales the learning rate with it. From a classifier of the same width and
experts, trained or converted: --config.init_from=WORKDIR takes its backbone.
"""

from condconv_jax.config import detection, train_as_ssd


def get_config(arg: str = "1.0,8"):
    width, _, experts = arg.partition(",")
    try:
        width, experts = float(width), int(experts or 1)
    except ValueError as error:
        raise ValueError(
            f"configs/coco/ssd300_mobilenet_v1.py: {arg!r}; pass WIDTH,EXPERTS, such as 0.75,8"
        ) from error
    config = detection("ssd300_mobilenet_v1")
    train_as_ssd(config)
    config.model.width = width
    config.model.num_experts = experts if experts > 1 else 0
    config.model.dtype = "bfloat16"
    config.data.path = "data/coco"
    config.data.train = "train2017"
    config.data.eval = "val2017"
    config.data.threads = 16
    config.eval_batch_size = 128
    config.eval_every_epochs = 10.0
    config.log_every = 100
    return config.lock()
