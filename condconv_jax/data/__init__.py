"""Pictures in: sources with random access, transforms, and the pipelines that batch them.

Pictures with boxes are in `condconv_jax.data.detection`, sounds as pictures in
`condconv_jax.data.speech`; the pipelines are the same.
"""

from condconv_jax.data.arrays import ArraySource, EncodedSource
from condconv_jax.data.corrupt import SkippingSource
from condconv_jax.data.decoding import CorruptSampleError
from condconv_jax.data.detection import (
    DETECTION_SOURCES,
    DetectionSample,
    DetectionTransform,
    make_detection_transforms,
    open_detection_source,
)
from condconv_jax.data.fashion_mnist import open_fashion_mnist
from condconv_jax.data.folder import FolderSource, open_folder
from condconv_jax.data.generated_words import GeneratedWords, open_generated_words
from condconv_jax.data.normalization import STATISTICS, ChannelStatistics, normalize
from condconv_jax.data.npz import open_npz
from condconv_jax.data.pipeline import Batch, Batches, eval_batches, train_batches
from condconv_jax.data.policies import (
    AUGMENTATIONS,
    IMAGENET_POLICY,
    AutoAugment,
    RandAugment,
)
from condconv_jax.data.registry import SOURCES, open_source
from condconv_jax.data.resident import ResidentBatches, check_resident
from condconv_jax.data.resizing import INTERPOLATIONS
from condconv_jax.data.source import ConcatenatedSource, NamedSource, Sample, Source, SubsetSource
from condconv_jax.data.speech_commands import SpeechCommandsSource, open_speech_commands
from condconv_jax.data.tfds import TfdsSource, open_tfds
from condconv_jax.data.transforms import (
    CROPS,
    CentralWindow,
    PadAndRandomCrop,
    RandomFlip,
    RandomResizedCrop,
    ResizedCentralCrop,
    Steps,
    Transform,
    TransformedSample,
    make_transforms,
)
from condconv_jax.data.video import Frame, Video, is_video
from condconv_jax.data.video_writer import VideoWriter
from condconv_jax.data.zip_folder import ZipFolderSource

__all__ = [
    "AUGMENTATIONS",
    "CROPS",
    "DETECTION_SOURCES",
    "IMAGENET_POLICY",
    "INTERPOLATIONS",
    "SOURCES",
    "STATISTICS",
    "ArraySource",
    "AutoAugment",
    "Batch",
    "Batches",
    "CentralWindow",
    "ChannelStatistics",
    "ConcatenatedSource",
    "CorruptSampleError",
    "DetectionSample",
    "DetectionTransform",
    "EncodedSource",
    "FolderSource",
    "Frame",
    "GeneratedWords",
    "NamedSource",
    "PadAndRandomCrop",
    "RandAugment",
    "RandomFlip",
    "RandomResizedCrop",
    "ResidentBatches",
    "ResizedCentralCrop",
    "Sample",
    "SkippingSource",
    "Source",
    "SpeechCommandsSource",
    "Steps",
    "SubsetSource",
    "TfdsSource",
    "Transform",
    "TransformedSample",
    "Video",
    "VideoWriter",
    "ZipFolderSource",
    "check_resident",
    "eval_batches",
    "is_video",
    "make_detection_transforms",
    "make_transforms",
    "normalize",
    "open_detection_source",
    "open_fashion_mnist",
    "open_folder",
    "open_generated_words",
    "open_npz",
    "open_source",
    "open_speech_commands",
    "open_tfds",
    "train_batches",
]
