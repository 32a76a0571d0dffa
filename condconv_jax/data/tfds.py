"""Any classification data set prepared with TensorFlow Datasets, read without TensorFlow.

ArrayRecord, or TFRecord, which is TFDS' default. Nothing is ever downloaded or prepared here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from condconv_jax.data.arrays import text_names
from condconv_jax.data.decoding import decode_image
from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.data.tfrecord import TfrecordShards
from condconv_jax.names import unknown_name


class Records(Protocol):
    """Random access to dicts of features, the encoded picture among them as bytes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class TfdsSource(NamedSource):
    """One split of a prepared data set.

    Attributes:
      records: dicts of features whose pictures are not decoded.
      image_key: feature with the picture, encoded bytes or uint8 (h, w, c).
      label_key: feature with the label.
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      CorruptSampleError: on reading, if a picture cannot be decoded or a record is damaged.
      ValueError: on reading, if a label has no class or a file is damaged as a whole.
    """

    records: Records
    image_key: str
    label_key: str
    class_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        record = self.records[index]
        image, label = record[self.image_key], int(record[self.label_key])
        if isinstance(image, bytes):
            image = decode_image(image, f"picture {index} of {self.name}")
        elif image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f"TfdsSource: sample {index} of {self.name} has the label {label}; wants 0.."
                f"{self.num_classes - 1}; a split published without labels cannot be used"
            )
        return {"image": image, "label": label}


def open_tfds(
    split: str,
    *,
    path: str = "",
    dataset: str = "",
    image_key: str = "image",
    label_key: str = "label",
) -> TfdsSource:
    """Returns one split of a data set the user prepared with TFDS.

    Where it was prepared in both formats, ArrayRecord is read: its files have an index, those of
    TFRecord have to be indexed as they are first read (`TfrecordShards`).

    Args:
      split: a split of the data set, whole.
      path: TFDS' data_dir, by default TFDS' own (`TFDS_DATA_DIR` or ~/tensorflow_datasets); or
        with no `dataset`, the folder of one version, such as <data_dir>/cifar10/3.0.2.
      dataset: "name", "name:version", "name/config" or "name/config:version".
      image_key: feature with the picture.
      label_key: feature with the label, a ClassLabel.

    Raises:
      FileNotFoundError: if it is not prepared there; the message says how to prepare it.
      ValueError: if it was prepared in neither format, the split or a feature is not there, or a
        feature is not a picture of 8 bits or a ClassLabel.
    """
    builder = _open_builder(path, dataset)
    info = builder.info
    formats = _checked_formats(builder)
    if split not in info.splits:
        raise unknown_name("open_tfds", f"split of {info.full_name}", split, info.splits)
    decoders = _check_features(info, image_key, label_key)
    names = info.features[label_key].names
    return TfdsSource(
        records=(
            builder.as_data_source(split=split, decoders=decoders)
            if "array_record" in formats
            else _open_tfrecord(info, split, decoders)
        ),
        image_key=image_key,
        label_key=label_key,
        class_names=text_names(names),
        name=f"{info.full_name} {split}",
    )


def _open_builder(path: str, dataset: str) -> Any:
    # Here, not above: no other source needs it, and it is slow to import.
    import tensorflow_datasets as tfds

    place = str(Path(path).expanduser()) if path and "://" not in path else path
    if not dataset:
        if not path:
            raise ValueError(
                "open_tfds: got neither a data set nor a path; pass dataset='name:version' and "
                "path=data_dir, or the folder of one version as path"
            )
        if not tfds.core.Path(place, "dataset_info.json").exists():
            raise FileNotFoundError(
                f"open_tfds: {place} is not the folder of one version of a prepared data set (it "
                f"has no dataset_info.json); pass dataset='name:version' with its data_dir as path"
            )
        return tfds.builder_from_directory(place)
    try:
        # Not tfds.builder: that prefers the builder's code, which may import TensorFlow.
        return tfds.core.read_only_builder.builder_from_files(dataset, data_dir=place or None)
    except (tfds.core.DatasetNotFoundError, ImportError) as error:
        data_dir = place or tfds.core.constants.DATA_DIR
        raise FileNotFoundError(
            f"open_tfds: {dataset!r} is not prepared in the data_dir {data_dir}; prepare it once "
            f"where TensorFlow is installed, with tfds.builder({dataset!r}, "
            f"data_dir={data_dir!r}, file_format='array_record').download_and_prepare(), or pass "
            f"the data_dir that holds it as path, with its config and version in the name"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"open_tfds: cannot open {dataset!r}: {str(error).splitlines()[0]}; wants 'name', "
            f"'name:version', 'name/config' or 'name/config:version', in one data_dir"
        ) from error


def _checked_formats(builder: Any) -> list[str]:
    """Returns the formats that the data were prepared in, at least one of which can be read."""
    formats = sorted(fmt.value for fmt in builder.info.available_file_formats())
    if not {"array_record", "tfrecord"} & set(formats):
        # "name/config/version" -> "name/config:version", the way tfds.builder wants it.
        dataset = ":".join(builder.info.full_name.rsplit("/", 1))
        raise ValueError(
            f"open_tfds: {dataset} in {builder.data_dir} was prepared as "
            f"{', '.join(formats) or 'an unknown format'}; wants array_record or tfrecord; prepare "
            f"it again into another data_dir, with tfds.builder({dataset!r}, data_dir=..., "
            f"file_format='array_record').download_and_prepare()"
        )
    return formats


@dataclass(frozen=True)
class _DeserializedRecords:
    """Records as the features they hold, as TFDS' own data sources give them."""

    shards: TfrecordShards
    features: Any
    decoders: dict[str, Any]

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Any:
        return self.features.deserialize_example_np(self.shards[index], decoders=self.decoders)


def _open_tfrecord(info: Any, split: str, decoders: dict[str, Any]) -> Records:
    shards = info.splits[split]
    # The template may be that of another format, if the data were prepared in several.
    template = shards.filename_template.replace(filetype_suffix="tfrecord")
    files = sorted(str(file) for file in template.sharded_filepaths(shards.num_shards))
    if any("://" in file for file in files):
        raise ValueError(
            f"open_tfds: {files[0]} is not on this machine; TFRecord files are read from mounted "
            f"folders only; copy the data, or prepare them as ArrayRecord"
        )
    lengths = tuple(int(length) for length in shards.shard_lengths)
    records = TfrecordShards(tuple(map(Path, files)), lengths)
    return _DeserializedRecords(records, info.features, decoders)


def _check_features(info: Any, image_key: str, label_key: str) -> dict[str, Any]:
    """Returns the decoders that leave an encoded picture as bytes, for threads to decode."""
    import tensorflow_datasets as tfds

    features = info.features
    for kind, key in (("image feature", image_key), ("label feature", label_key)):
        if key not in features:
            raise unknown_name("open_tfds", f"{kind} of {info.full_name}", key, features)
    image, label = features[image_key], features[label_key]
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"open_tfds: the feature {image_key!r} of {info.full_name} is "
            f"{np.dtype(image.np_dtype).name} {image.shape}; wants uint8 (h, w, 1) or (h, w, 3)"
        )
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"open_tfds: the feature {label_key!r} of {info.full_name} is a "
            f"{type(label).__name__}; wants a ClassLabel; pass label_key"
        )
    if isinstance(image, tfds.features.Image):
        return {image_key: tfds.decode.SkipDecoding()}
    return {}
