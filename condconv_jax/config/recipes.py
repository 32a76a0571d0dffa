"""How the published networks were trained on ImageNet: what their config files have in common."""

from ml_collections import ConfigDict

from condconv_jax.config.defaults import classification

# Of ILSVRC 2012, as prepared with `tfds build imagenet2012`.
TRAIN_SPLIT, EVAL_SPLIT = "train", "validation"


def imagenet(model: str) -> ConfigDict:
    """Returns a config of a network on ImageNet at 224 pixels, unlocked; how to train is open.

    Inception's random crops in training, the central 87.5 % in evaluation, bfloat16.

    Args:
      model: the network, one of `models.names()`.

    Source: tensorflow/tpu, models/official/efficientnet/preprocessing.py.
    """
    config = classification(model)
    config.model.dtype = "bfloat16"
    config.data.name = "tfds"
    config.data.dataset = "imagenet2012"
    config.data.train = TRAIN_SPLIT
    config.data.eval = EVAL_SPLIT
    config.data.image_size = 224
    config.data.crop = "resized"
    config.data.statistics = "imagenet"
    config.data.threads = 16
    config.eval_batch_size = 1024
    config.eval_every_epochs = 5.0
    config.log_every = 100
    return config


def train_as_kornblith(config: ConfigDict) -> None:
    """Sets the recipe that the paper names for MobileNetV1, MobileNetV2 and ResNet-50.

    SGD with Nesterov's momentum, 360 epochs of batches of 4096, no moving averages. The paper gives
    the reference (Kornblith et al.), what it adds for CondConv (dropout, AutoAugment, mixup of
    0.2), but no table of values: those of the reference are recalled, not verified.

    Args:
      config: of a network on ImageNet.

    Source: arXiv 1904.04971, section 4.1; Kornblith et al., arXiv 1805.08974, appendix A.
    """
    config.batch_size = 4096
    config.epochs = 360.0
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 8e-5
    config.optimizer.decay = "all_but_batch_norm"
    config.schedule.name = "exponential"
    config.schedule.learning_rate = 1.6
    config.schedule.per_examples = 4096
    config.schedule.warmup_epochs = 10.0
    config.schedule.decay_rate = 0.975
    config.schedule.decay_epochs = 1.0
    config.model.batch_norm_momentum = 0.9


def regularize_as_condconv(config: ConfigDict) -> None:
    """Adds what the paper's CondConv networks have beyond that recipe; recalled, not verified.

    Args:
      config: of a network on ImageNet.

    Source: arXiv 1904.04971, section 4.1.
    """
    config.model.dropout = 0.2
    config.data.augment = "autoaugment"
    config.mixup = 0.2


def train_as_efficientnet(config: ConfigDict) -> None:
    """Sets the recipe of the official EfficientNet code, MnasNet's but for batch and augmentation.

    RMSProp, 350 epochs of batches of 2048, stairs of 0.97 every 2.4 epochs, moving averages of
    weights and batch-norm statistics, batch norm over groups of 128.

    Args:
      config: of a network on ImageNet.

    Source: tensorflow/tpu, models/official/efficientnet/main.py (flags) and
      efficientnet_builder.py.
    """
    config.batch_size = 2048
    config.epochs = 350.0
    config.optimizer.name = "rmsprop"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.rms_decay = 0.9
    config.optimizer.epsilon = 1e-3
    config.optimizer.weight_decay = 1e-5
    config.optimizer.decay = "all_but_batch_norm"
    config.schedule.name = "exponential"
    config.schedule.learning_rate = 0.016
    config.schedule.per_examples = 256
    config.schedule.warmup_epochs = 5.0
    config.schedule.decay_rate = 0.97
    config.schedule.decay_epochs = 2.4
    config.average_decay = 0.9999
    config.label_smoothing = 0.1
    config.model.dropout = 0.2
    config.model.batch_norm_momentum = 0.99
    config.model.batch_norm_epsilon = 1e-3
    config.model.batch_norm_group = 128


def train_as_ssd(config: ConfigDict) -> None:
    """Sets the recipe of the TensorFlow object detection API for SSD300 on MobileNetV1.

    SGD with momentum, 10,000 steps of batches of 2048 (173 epochs of COCO 2017), a cosine from 0.9;
    focal loss, the boxes' averaged over their four codes; crops and mirror images; pixels to -1..1.
    Different there: the warm-up starts at a rate of 0.3, ours at 0; and the weights, which ours
    take from a classifier if `config.init_from` says so.

    Args:
      config: of a detector on COCO.

    Source: tensorflow/models, research/object_detection, samples/configs/
      ssd_mobilenet_v1_0.75_depth_300x300_coco14_sync.config; that the paper used it is recalled,
      not verified.
    """
    config.batch_size = 2048
    config.epochs = 10_000 * 2048 / 118_287
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay = "kernels"
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.9
    config.schedule.per_examples = 2048
    config.schedule.warmup_epochs = 300 * 2048 / 118_287
    config.loss.box_weight = 1 / 4
    config.data.expand = 1.0
    config.data.photometric = False
