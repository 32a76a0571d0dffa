r"""SSD300 on MobileNetV1 for BCCD, 364 microscope pictures of blood cells, from nothing.

  condconv train --config=configs/bccd/ssd300_mobilenet_v1.py:condconv \
      --config.data.path=BCCD --workdir=runs/bccd_condconv
  condconv evaluate --workdir=runs/bccd_condconv --best --config.data.eval=test

BCCD (github.com/Shenggan/BCCD_Dataset, MIT licence) in COCO's layout, as
experiments/voc_to_coco.py makes it: `instances_train.json`, `instances_val.json` and
`instances_test.json`, and the pictures in `train`, `val` and `test`, or in `images.zip`.

Expected on the test split, three seeds: AP50 79.0 +- 1.3 % static, 76.7 +- 2.5 % with 8 experts
(docs/detection.md). 12 to 14 minutes a run on two cores of an Intel Xeon of 2.1 GHz.
"""

from condconv_jax.config import detection
from condconv_jax.names import unknown_name

NUM_EXPERTS = {"static": 0, "condconv": 8}


def get_config(arg: str = "condconv"):
    if arg not in NUM_EXPERTS:
        raise unknown_name("configs/bccd/ssd300_mobilenet_v1.py", "network", arg, NUM_EXPERTS)
    config = detection("ssd300_mobilenet_v1")
    config.model.width = 0.25
    config.model.num_experts = NUM_EXPERTS[arg]
    # Platelets have 20 pixels: a finest map of 38 cells rather than 19, and anchors as small.
    config.model.early_strides = (2, 2, 1)
    config.model.min_scale = 0.14
    config.model.max_scale = 0.5
    config.model.batch_norm_momentum = 0.9
    config.data.path = "data/bccd"
    config.data.flip = "both"
    config.data.expand = 1.0
    config.data.max_boxes = 40
    config.data.threads = 1
    config.batch_size = 8
    config.eval_batch_size = 32
    config.epochs = 60.0
    config.optimizer.clip_norm = 5.0
    config.schedule.learning_rate = 0.3
    config.schedule.warmup_epochs = 3.0
    config.average_decay = 0.998
    config.eval_every_epochs = 10.0
    config.checkpoint_every_epochs = 10.0
    config.log_every = 25
    return config.lock()
