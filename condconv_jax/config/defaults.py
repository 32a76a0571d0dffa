"""Every key of a config, with its default and its meaning.

A config file starts from here, sets what is its own and locks the result, so that a misspelled
key anywhere is an error.
"""

from ml_collections import ConfigDict

from condconv_jax import models
from condconv_jax.names import unknown_name

# Keys that may differ between a run and its continuation: none of them changes the result, but for
# the order of sums that `expert_parts` has in common with the number of devices, and for pictures
# of more than `data.max_boxes` boxes.
MAY_CHANGE = (
    "log_every",
    "data.threads",
    "data.path",
    "data.max_corrupt",
    "data.max_boxes",
    "keep_last",
    "expert_parts",
)


def classification(model: str = "mobilenet_v1") -> ConfigDict:
    """Returns a config of image classification with every key that there is.

    Args:
      model: the network, one of `models.names("classification")`; `config.model` holds its options.

    Raises:
      ValueError: for an unknown network, or one of another task.
    """
    config = _of_task("classification", model)

    config.data.name = "fashion_mnist"  # npz, folder, tfds, speech_commands, generated_words
    config.data.image_key = "image"  # of TFDS, the feature with the picture
    config.data.label_key = "label"  # of TFDS, the feature with the class
    config.data.labels = "fine"  # of npz files with both, fine or coarse classes
    config.data.eval = "test"
    config.data.image_size = 28  # pixels
    config.data.crop = "pad"  # pad (and crop at random), resized (Inception style), none
    config.data.padding = 4  # pixels on each side
    config.data.area = (0.08, 1.0)  # of crop="resized", share of the picture, lowest and highest
    config.data.ratio = (3 / 4, 4 / 3)  # of crop="resized", width / height, lowest and highest
    config.data.central_fraction = 0.875  # of crop="resized", side that evaluation takes
    config.data.flip = True
    config.data.augment = "none"  # autoaugment, randaugment; of sound, spectrogram
    config.data.randaugment_layers = 2  # operations on each picture
    config.data.randaugment_magnitude = 10.0
    config.data.on_device = False  # keep all training pictures there; of crop="pad", no augment
    config.data.statistics = "fashion_mnist"  # whose channel means normalise, data.STATISTICS

    config.label_smoothing = 0.0
    config.mixup = 0.0  # alpha; 0 is none
    return config


def detection(model: str = "ssd300_mobilenet_v1") -> ConfigDict:
    """Returns a config of object detection with every key that there is.

    Args:
      model: the network, one of `models.names("detection")`; `config.model` holds its options.

    Raises:
      ValueError: for an unknown network, or one of another task.
    """
    config = _of_task("detection", model)

    config.data.name = "coco"  # tfds
    config.data.image_key = "image"  # of TFDS, the feature with the picture
    config.data.objects_key = "objects"  # of TFDS, the feature with boxes and classes
    config.data.eval = "val"
    config.data.image_size = 300  # pixels
    # Of a COCO file, names of the categories to find; all if there are none.
    config.data.categories = ()
    config.data.max_boxes = 100  # of one picture
    config.data.crop = True  # at random, by how much of the boxes is left
    config.data.crop_scale = 0.3  # least square root of the share of the picture that is left
    config.data.expand = 4.0  # side of the largest canvas that a picture is put on; 1 is none
    config.data.flip = "horizontal"  # both, none
    config.data.photometric = True  # brightness, contrast, saturation, hue
    config.data.interpolation = "bilinear"
    config.data.statistics = "inception"  # whose channel means normalise, data.STATISTICS

    config.loss = ConfigDict()
    config.loss.class_loss = "focal"  # hard_negative
    config.loss.focal_alpha = 0.75  # weight of an anchor's own class
    config.loss.focal_gamma = 2.0
    config.loss.box_weight = 1.0  # of the boxes' loss beside the classes'

    # What is kept of the predictions, in evaluation and prediction.
    config.detections = ConfigDict()
    config.detections.iou_threshold = 0.6  # of two boxes of a class that overlap more, one goes
    config.detections.score_threshold = 1e-8
    config.detections.max_detections = 100  # of a picture
    return config


# The configs by task, network -> config.
DEFAULTS = {"classification": classification, "detection": detection}


def _of_task(task: str, model: str) -> ConfigDict:
    """The keys that all tasks have in common."""
    if model not in models.names(task):
        # Also of a network that there is, but of another task.
        raise unknown_name(f"config.{task}", "model", model, models.names(task))
    config = ConfigDict()
    config.task = task
    config.seed = 0

    # A work directory, a checkpoint folder or a step's folder to take weights from; "" is none.
    # A classifier for another number of classes starts anew.
    config.init_from = ""

    # The network and all of its options, which its class in condconv_jax/models describes.
    config.model = ConfigDict({"name": model, **models.default_options(model)})

    config.data = ConfigDict()
    config.data.path = ""  # folder of the data set; of TFDS, the data_dir
    config.data.dataset = ""  # of TFDS, the data set's name
    config.data.train = "train"  # a split, or a part of it such as "train[:90%]"
    # bilinear, lanczos; and of OpenCV, faster, opencv_area, opencv_bicubic, opencv_bilinear
    config.data.interpolation = "bicubic"
    # Pictures that may be damaged, and are named and passed over: of the training and of the
    # evaluation split so many each, and of what each process meets from one start to the next.
    config.data.max_corrupt = 0
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
    config.optimizer.adaptive_clip = 0.0  # the same of a channel's, over its weights' norm
    config.optimizer.offset_rate = 1.0  # of deformable layers' offsets, in the learning rate

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"  # exponential, constant
    config.schedule.learning_rate = 0.1  # the highest
    # The batch size that learning_rate is for: it is scaled to the one at hand. 0 is any.
    config.schedule.per_examples = 0
    config.schedule.warmup_epochs = 1.0
    config.schedule.decay_rate = 0.97  # of exponential, of one stair to the next
    config.schedule.decay_epochs = 2.4  # of exponential, of a stair

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
    config.keep_best = 1  # checkpoints, by top-1 or AP on the evaluation split
    return config
