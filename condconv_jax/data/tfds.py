"""Any classification data set prepared with TensorFlow Datasets, read without TensorFlow.

ArrayRecord, or TFRecord, which is TFDS' default. Nothing is ever downloaded or prepared here.
"""

from dataclasses import dataclass
from typing import Any

from condconv_jax.data.arrays import text_names
from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.data.tfds_records import (
    Records,
    check_image_feature,
    decoded_image,
    open_builder,
    open_records,
)
from condconv_jax.names import unknown_name


@dataclass(frozen=True, eq=False, repr=False)
class TfdsSource(NamedSource[Sample]):
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
      OSError: on reading, if a file is not there or cannot be opened.
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
        image = decoded_image(image, f"picture {index} of {self.name}")
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

    Where it was prepared in both formats, ArrayRecord is read (`open_records` says why).

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
    builder = open_builder("open_tfds", path, dataset)
    info = builder.info
    decoders = check_image_feature("open_tfds", info, image_key)
    _check_label_feature(info, label_key)
    return TfdsSource(
        records=open_records("open_tfds", builder, split, decoders),
        image_key=image_key,
        label_key=label_key,
        class_names=text_names(info.features[label_key].names),
        name=f"{info.full_name} {split}",
    )


def _check_label_feature(info: Any, label_key: str) -> None:
    import tensorflow_datasets as tfds

    if label_key not in info.features:
        raise unknown_name(
            "open_tfds", f"label feature of {info.full_name}", label_key, info.features
        )
    label = info.features[label_key]
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"open_tfds: the feature {label_key!r} of {info.full_name} is a "
            f"{type(label).__name__}; wants a ClassLabel; pass label_key"
        )
