"""Prepared TFDS data of any features: the builder, its formats, records without TensorFlow.

`function` is what the error messages name: who was asked to open the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from condconv_jax.data.array_record import ArrayRecordShards
from condconv_jax.data.decoding import decode_image
from condconv_jax.data.tfrecord import TfrecordShards
from condconv_jax.names import unknown_name


class Records(Protocol):
    """Random access to dicts of features, the encoded picture among them as bytes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def open_builder(function: str, path: str, dataset: str) -> Any:
    """Returns TFDS' read-only builder of a prepared data set.

    Args:
      function: see above.
      path: TFDS' data_dir, by default TFDS' own; or with no `dataset`, the folder of one version.
      dataset: "name", "name:version", "name/config" or "name/config:version".

    Raises:
      FileNotFoundError: if it is not prepared there; the message says how to prepare it.
      ValueError: if neither is given, or the name is malformed.
    """
    # Here, not above: no other source needs it, and it is slow to import.
    import tensorflow_datasets as tfds

    place = str(Path(path).expanduser()) if path and "://" not in path else path
    if not dataset:
        if not path:
            raise ValueError(
                f"{function}: got neither a data set nor a path; pass dataset='name:version' and "
                "path=data_dir, or the folder of one version as path"
            )
        if not tfds.core.Path(place, "dataset_info.json").exists():
            raise FileNotFoundError(
                f"{function}: {place} is not the folder of one version of a prepared data set (it "
                f"has no dataset_info.json); pass dataset='name:version' with its data_dir as path"
            )
        return tfds.builder_from_directory(place)
    try:
        # Not tfds.builder: that prefers the builder's code, which may import TensorFlow.
        return tfds.core.read_only_builder.builder_from_files(dataset, data_dir=place or None)
    except (tfds.core.DatasetNotFoundError, ImportError) as error:
        data_dir = place or tfds.core.constants.DATA_DIR
        raise FileNotFoundError(
            f"{function}: {dataset!r} is not prepared in the data_dir {data_dir}; prepare it once "
            f"where TensorFlow is installed, with tfds.builder({dataset!r}, "
            f"data_dir={data_dir!r}, file_format='array_record').download_and_prepare(), or pass "
            f"the data_dir that holds it as path, with its config and version in the name"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{function}: cannot open {dataset!r}: {str(error).splitlines()[0]}; wants 'name', "
            f"'name:version', 'name/config' or 'name/config:version', in one data_dir"
        ) from error


def _checked_formats(function: str, builder: Any) -> list[str]:
    """Returns the formats that the data were prepared in, at least one of which can be read."""
    formats = sorted(fmt.value for fmt in builder.info.available_file_formats())
    if not {"array_record", "tfrecord"} & set(formats):
        # "name/config/version" -> "name/config:version", the way tfds.builder wants it.
        dataset = ":".join(builder.info.full_name.rsplit("/", 1))
        raise ValueError(
            f"{function}: {dataset} in {builder.data_dir} was prepared as "
            f"{', '.join(formats) or 'an unknown format'}; wants array_record or tfrecord; prepare "
            f"it again into another data_dir, with tfds.builder({dataset!r}, data_dir=..., "
            f"file_format='array_record').download_and_prepare()"
        )
    return formats


def open_records(function: str, builder: Any, split: str, decoders: Mapping[str, Any]) -> Records:
    """Returns the records of a split.

    Where it was prepared in both formats, ArrayRecord is read: its files have an index, those of
    TFRecord have to be indexed as they are first read (`TfrecordShards`).

    Args:
      function: see above.
      builder: from `open_builder`.
      split: whole.
      decoders: by feature, see `check_image_feature`.

    Raises:
      ValueError: if it was prepared in neither format, the split is not there, or TFRecord files
        are not on this machine.
    """
    formats, info = _checked_formats(function, builder), builder.info
    if split not in info.splits:
        raise unknown_name(function, f"split of {info.full_name}", split, info.splits)
    opened = _open_array_record if "array_record" in formats else _open_tfrecord
    return _DeserializedRecords(opened(function, builder, split), info.features, decoders)


class _Shards(Protocol):
    """Random access to records as bytes, a damaged one of which is a `CorruptSampleError`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class _DeserializedRecords:
    """Records as the features they hold, as TFDS' own data sources give them."""

    shards: _Shards
    features: Any
    decoders: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Any:
        return self.features.deserialize_example_np(self.shards[index], decoders=self.decoders)


def _open_array_record(function: str, builder: Any, split: str) -> _Shards:
    import tensorflow_datasets as tfds

    del function
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split=split, deserialize_method=raw)
    files, lengths = _files(builder.info.splits[split], "array_record")
    return ArrayRecordShards(records, tuple(files), lengths)


def _open_tfrecord(function: str, builder: Any, split: str) -> _Shards:
    files, lengths = _files(builder.info.splits[split], "tfrecord")
    if any("://" in file for file in files):
        raise ValueError(
            f"{function}: {files[0]} is not on this machine; TFRecord files are read from mounted "
            f"folders only; copy the data, or prepare them as ArrayRecord"
        )
    return TfrecordShards(tuple(map(Path, files)), lengths)


def _files(shards: Any, suffix: str) -> tuple[list[str], tuple[int, ...]]:
    """Returns the files of a split in one format, and how many records each is said to hold."""
    # The template may be that of another format, if the data were prepared in several.
    template = shards.filename_template.replace(filetype_suffix=suffix)
    files = sorted(str(file) for file in template.sharded_filepaths(shards.num_shards))
    return files, tuple(int(length) for length in shards.shard_lengths)


def check_image_feature(function: str, info: Any, image_key: str) -> dict[str, Any]:
    """Returns the decoders that leave an encoded picture as bytes, for threads to decode.

    Raises:
      ValueError: if the feature is not there or not a picture of 8 bits.
    """
    import tensorflow_datasets as tfds

    if image_key not in info.features:
        raise unknown_name(function, f"image feature of {info.full_name}", image_key, info.features)
    image = info.features[image_key]
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"{function}: the feature {image_key!r} of {info.full_name} is "
            f"{np.dtype(image.np_dtype).name} {image.shape}; wants uint8 (h, w, 1) or (h, w, 3)"
        )
    if isinstance(image, tfds.features.Image):
        return {image_key: tfds.decode.SkipDecoding()}
    return {}


def decoded_image(image: bytes | np.ndarray, name: str) -> np.ndarray:
    """Returns a record's picture as uint8 (h, w, 3), whether it was encoded or not.

    Raises:
      CorruptSampleError: naming `name`, if it cannot be decoded.
    """
    if isinstance(image, bytes):
        return decode_image(image, name)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
