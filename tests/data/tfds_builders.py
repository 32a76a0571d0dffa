"""Data set builders for the tests; TFDS wants them in a module that can be imported."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

NAMES = ("ant", "bee", "cat")


def picture(number, channels=3):
    """A picture of its own for every number."""
    return np.random.default_rng(number).integers(0, 256, (6, 5, channels), dtype=np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


class TinyInsects(tfds.core.GeneratorBasedBuilder):
    """Eight colour pictures to train on and four to test; one test picture is unlabelled."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "grey": tfds.features.Image(shape=(6, 5, 1)),
                    "pixels": tfds.features.Tensor(shape=(6, 5, 1), dtype=np.uint8),
                    "depth": tfds.features.Tensor(shape=(6, 5, 1), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=NAMES),
                    "number": tfds.features.Scalar(dtype=np.int64),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(8)), "test": self._generate_examples([8, 9])}

    def _generate_examples(self, numbers):
        for number in numbers:
            grey = picture(number, 1)
            # Bytes, because TFDS would need TensorFlow to encode an array.
            yield (
                number,
                {
                    "image": io.BytesIO(png(picture(number))),
                    "grey": io.BytesIO(png(grey)),
                    "pixels": grey,
                    "depth": grey.astype(np.float32),
                    "label": -1 if number == 9 else number % 3,
                    "number": number,
                },
            )
