"""Data set builders for the tests; TFDS wants them in a module that can be imported."""

import io
import json
import struct

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from condconv_jax.crc32c import masked_crc32c

NAMES = ("ant", "bee", "cat")


def picture(number, channels=3):
    """A picture of its own for every number."""
    return np.random.default_rng(number).integers(0, 256, (6, 5, channels), dtype=np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def framed(record):
    """A record as it lies in a TFRecord file."""
    length = struct.pack("<Q", len(record))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, record)]
    return length + checks[0] + record + checks[1]


def write_tfrecord(old, new, lengths):
    """Writes the ArrayRecords of a version's folder as TFRecord, as TFDS lays them out.

    Args:
      old: the folder.
      new: another one, of the same last parts.
      lengths: of the shards of each split.
    """
    new.mkdir(parents=True)
    for file in old.iterdir():
        if "array_record" not in file.name:
            (new / file.name).write_bytes(file.read_bytes())
    info = json.loads((old / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    builder = tfds.builder_from_directory(str(old))
    for split in info["splits"]:
        raw = builder.as_data_source(
            split["name"], deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        records = iter([raw[index] for index in range(len(raw))])
        shards = lengths[split["name"]]
        split["shardLengths"] = list(map(str, shards))
        for number, length in enumerate(shards):
            name = f"{info['name']}-{split['name']}.tfrecord-{number:05}-of-{len(shards):05}"
            content = b"".join(framed(next(records)) for _ in range(length))
            (new / name).write_bytes(content)
    (new / "dataset_info.json").write_text(json.dumps(info))


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


def scattered(number):
    """Boxes (ymin, xmin, ymax, xmax), labels, crowds, areas of a picture; the fourth has none."""
    count = number % 4
    rng = np.random.default_rng(number)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    boxes = corners.astype(np.float32)
    return boxes, np.arange(count) % 3, np.arange(count) % 2 == 1, 7 * np.arange(count)


class TinyScenes(tfds.core.GeneratorBasedBuilder):
    """Eight pictures with up to three boxes in COCO's features; one of the test's is flat."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        box = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=NAMES),
            "is_crowd": np.bool_,
            "area": np.int64,
            "id": np.int64,
        }
        bare = {key: box[key] for key in ("bbox", "label")}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/id": np.int64,
                    "objects": tfds.features.Sequence(box),
                    "bare": tfds.features.Sequence(bare),
                    "numbers": tfds.features.Sequence({**bare, "label": np.int64}),
                    "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
                    "label": tfds.features.ClassLabel(names=NAMES),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(8)), "test": self._generate_examples([9])}

    def _generate_examples(self, numbers):
        for number in numbers:
            boxes, labels, crowds, areas = scattered(number)
            if number == 9:
                boxes[0, 2] = boxes[0, 0]
            bare = [
                {"bbox": tfds.features.BBox(*map(float, box)), "label": int(label)}
                for box, label in zip(boxes, labels, strict=True)
            ]
            objects = [
                {**box, "is_crowd": bool(crowd), "area": int(area), "id": 0}
                for box, crowd, area in zip(bare, crowds, areas, strict=True)
            ]
            yield (
                number,
                {
                    "image": io.BytesIO(png(picture(number))),
                    "image/id": 100 + number,
                    "objects": objects,
                    "bare": bare,
                    "numbers": bare,
                    "boxes": [box["bbox"] for box in bare],
                    "label": number % 3,
                },
            )


def sound(number):
    """A sound of its own for every number, some shorter than a second."""
    rng = np.random.default_rng(number)
    return rng.integers(-(2**15), 2**15, 16_000 - 500 * number).astype(np.int16)


class SpeechCommands(tfds.core.GeneratorBasedBuilder):
    """Sounds of four classes; of the three test samples one has no label, one no sound.

    In place of TFDS' Audio a Tensor, which is kept in the same form but needs no TensorFlow.
    """

    VERSION = tfds.core.Version("0.0.3")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),
                    "label": tfds.features.ClassLabel(
                        names=["no", "yes", "_silence_", "_unknown_"]
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(6)),
            "test": self._generate_examples([7, 8, 9]),
        }

    def _generate_examples(self, numbers):
        for number in numbers:
            audio = sound(number)[: 0 if number == 8 else None]
            yield number, {"audio": audio, "label": -1 if number == 9 else number % 4}
