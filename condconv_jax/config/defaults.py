"""Every key of a config, with its default and its meaning.

A config file starts from here, sets what is its own and locks the result, so that a misspelled
key anywhere is an error.
"""

from ml_collections import ConfigDict

from condconv_jax.models import default_options

# Keys that may differ between a run and its continuation: none of them changes the result, but for
# the order of sums that `expert_parts` has in common with the number of devices.
MAY_CHANGE = (
    "log_every",
    "data.threads",
    "data.path",
    "data.max_corrupt",
    "keep_last",
    "expert_parts",
)


def classification(model: str = "mobilenet_v1") -> ConfigDict:
    """Returns a config of image classification with every key that there is.

    Args:
      model: the network, one of `models.names()`; `config.model` holds its options.

    Raises:
      ValueError: for an unknown network.
    """
    config = ConfigDict()
    config.task = "classification"
    config.seed = 0

    # A work directory, a checkpoint folder or a step's folder to take weights from; "" is none.
    # A classifier for another number of classes starts anew.
    config.init_from = ""

    # The network and all of its options, which its class in condconv_jax/models describes.
    config.model = ConfigDict({"name": model, **default_options(model)})

    config.data = ConfigDict()
    config.data.name = "fashion_mnist"  # npz, folder, tfds
    config.data.path = ""  # folder of the data set; of TFDS, the data_dir
    config.data.dataset = ""  # of TFDS, the data set's name
    config.data.image_key = "image"  # of TFDS, the feature with the picture
    config.data.label_key = "label"  # of TFDS, the feature with the class
    config.data.labels = "fine"  # of npz files with both, fine or coarse classes
    config.data.train = "train"  # a split, or a part of it such as "train[:90%]"
    config.data.eval = "test"
    config.data.image_size = 28  # pixels
    config.data.crop = "pad"  # pad (and crop at random), resized (Inception style), none
    config.data.padding = 4  # pixels on each side
    config.data.area = (0.08, 1.0)  # of crop="resized", share of the picture, lowest and highest
    config.data.ratio = (3 / 4, 4 / 3)  # of crop="resized", width / height, lowest and highest
    config.data.central_fraction = 0.875  # of crop="resized", side that evaluation takes
    # bilinear, lanczos; and of OpenCV, faster, opencv_area, opencv_bicubic, opencv_bilinear
    config.data.interpolation = "bicubic"
    config.data.flip = True
    config.data.augment = "none"  # autoaugment, randaugment
    config.data.randaugment_layers = 2  # operations on each picture
    config.data.randaugment_magnitude = 10.0
    config.data.statistics = "fashion_mnist"  # whose channel means normalise, data.STATISTICS
    config.data.max_corrupt = 0  # pictures that may be damaged, and are named and passed over
    config.data.threads = 2  # that read and augment

    config.batch_size = 128  # global
    config.eval_batch_size = 256  # global
    config.epochs = 10.0

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # rmsprop
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.rms_decay = 0.9  # of rmsprop, of the mean square
    config.optimizer.epsilon = 1e-3  # of rmsprop, added to the mean square
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay = "kernels"  # all_but_batch_norm, all
    config.optimizer.clip_norm = 0.0  # largest norm of the gradient; 0 is no limit

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # exponential, constant
    config.schedule.learning_rate = 0.1  # the highest
    # The batch size that learning_rate is for: it is scaled to the one at hand. 0 is any.
    config.schedule.per_examples = 0
    config.schedule.warmup_epochs = 1.0
    config.schedule.decay_rate = 0.97  # of exponential, of one stair to the next
    config.schedule.decay_epochs = 2.4  # of exponential, of a stair

    config.label_smoothing = 0.0
    config.mixup = 0.0  # alpha; 0 is none
    # Of the moving averages of weights and statistics, which are then evaluated; 0 keeps none.
    config.average_decay = 0.0

    # Parts of a batch whose gradients are computed one after another, to save memory.
    config.micro_batches = 1
    # Neighbouring devices that share one set of experts, each keeping a part of it.
    config.expert_parts = 1

    config.log_every = 20  # steps
    config.eval_every_epochs = 1.0
    config.checkpoint_every_epochs = 1.0
    config.keep_last = 2  # checkpoints
    config.keep_best = 1  # checkpoints, by top-1 on the evaluation split
    return config
