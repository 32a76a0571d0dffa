"""Detection data prepared with TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from condconv_jax.data.arrays import text_names
from condconv_jax.data.detection.boxes import box_areas, has_inside
from condconv_jax.data.detection.sample import DetectionSample
from condconv_jax.data.source import NamedSource, checked_index
from condconv_jax.data.tfds_records import (
    Records,
    check_image_feature,
    decoded_image,
    open_builder,
    open_records,
)
from condconv_jax.names import unknown_name

_ID_KEY = "image/id"


@dataclass(frozen=True, eq=False, repr=False)
class TfdsDetectionSource(NamedSource[DetectionSample]):
    """One split of a prepared data set.

    Attributes:
      records: dicts of features whose pictures are not decoded.
      image_key: feature with the picture, encoded bytes or uint8 (h, w, c).
      objects_key: feature with the objects.
      has_ids: whether records have whole numbers as "image/id".
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      CorruptSampleError: on reading, if a picture cannot be decoded or a record is damaged.
      ValueError: on reading, if a label has no class, a box is not finite or not inside 0..1, an
        id does not fit int32, or a file is damaged as a whole.
      OSError: on reading, if a file is not there or cannot be opened.
    """

    records: Records
    image_key: str
    objects_key: str
    has_ids: bool
    class_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> DetectionSample:
        index = checked_index(self, index)
        record = self.records[index]
        image = decoded_image(record[self.image_key], f"picture {index} of {self.name}")
        objects: Mapping[str, Any] = record[self.objects_key]
        boxes = np.array(objects["bbox"], np.float32).reshape(-1, 4)
        labels = np.array(objects["label"], np.int64)
        crowd = np.array(objects.get("is_crowd", np.zeros(len(boxes))), bool)
        if "area" in objects:
            area = np.array(objects["area"], np.float32)
        else:
            area = box_areas(boxes * np.array(image.shape[:2] * 2, np.float64)).astype(np.float32)
        # NaN fits neither comparison.
        self._check(index, "bbox", boxes, (boxes >= 0) & (boxes <= 1), "shares 0..1")
        classes = f"0..{self.num_classes - 1}"
        self._check(index, "label", labels, (labels >= 0) & (labels < self.num_classes), classes)
        kept = has_inside(boxes)
        return {
            "image": image,
            "boxes": boxes[kept],
            "labels": labels[kept].astype(np.int32),
            "crowd": crowd[kept],
            "area": area[kept],
            "image_id": self._image_id(record, index),
        }

    def _check(
        self, index: int, what: str, values: np.ndarray, fits: np.ndarray, wants: str
    ) -> None:
        if not fits.all():
            first = np.argwhere(~fits)[0][0]
            raise ValueError(
                f"TfdsDetectionSource: object {first} of sample {index} of {self.name} has {what} "
                f"{values[first].tolist()}; wants {wants}; prepare the data anew"
            )

    def _image_id(self, record: Any, index: int) -> int:
        if not self.has_ids:
            return index
        image_id = int(record[_ID_KEY])
        if not -(2**31) <= image_id < 2**31:
            raise ValueError(
                f"TfdsDetectionSource: sample {index} of {self.name} has {_ID_KEY} {image_id}; "
                f"wants one that fits int32; prepare the data with smaller ids"
            )
        return image_id


def open_tfds_detection(
    split: str,
    *,
    path: str = "",
    dataset: str = "",
    image_key: str = "image",
    objects_key: str = "objects",
) -> TfdsDetectionSource:
    """Returns one split of a detection data set the user prepared with TFDS.

    Of each object `bbox` and `label` are read, and `is_crowd` and `area` where there are such;
    without, nothing is a crowd and areas are the boxes'. `is_difficult` of voc is not read: its
    objects are like all others. Boxes of zero size are left out as they are read, so that
    `remarks` does not count them. `image_id` is the feature "image/id" where it is a whole number,
    and the sample's index in the split where it is not.

    Args:
      split: a split of the data set, whole.
      path: TFDS' data_dir, by default TFDS' own (`TFDS_DATA_DIR` or ~/tensorflow_datasets); or
        with no `dataset`, the folder of one version, such as <data_dir>/coco/2017/1.1.0.
      dataset: "name", "name:version", "name/config" or "name/config:version", e.g. "coco/2017".
      image_key: feature with the picture.
      objects_key: feature with the objects, a sequence of features among which are `bbox`, a
        BBoxFeature, and `label`, a ClassLabel.

    Raises:
      FileNotFoundError: if it is not prepared there; the message says how to prepare it.
      ValueError: if it was prepared in neither format, the split or a feature is not there, or a
        feature is not what is said above.
    """
    builder = open_builder("open_tfds_detection", path, dataset)
    info = builder.info
    decoders = check_image_feature("open_tfds_detection", info, image_key)
    label = _check_objects_feature(info, objects_key)
    return TfdsDetectionSource(
        records=open_records("open_tfds_detection", builder, split, decoders),
        image_key=image_key,
        objects_key=objects_key,
        has_ids=_has_integers(info.features, _ID_KEY),
        class_names=text_names(label.names),
        name=f"{info.full_name} {split}",
    )


def _check_objects_feature(info: Any, objects_key: str) -> Any:
    """Returns the feature of the objects' labels."""
    import tensorflow_datasets as tfds

    if objects_key not in info.features:
        what = f"objects feature of {info.full_name}"
        raise unknown_name("open_tfds_detection", what, objects_key, info.features)
    objects = info.features[objects_key]
    inner = getattr(objects, "feature", None)
    wanted = {"bbox": tfds.features.BBoxFeature, "label": tfds.features.ClassLabel}
    if not isinstance(objects, tfds.features.Sequence) or not isinstance(
        inner, tfds.features.FeaturesDict
    ):
        got = "is no sequence of features"
    elif absent := [key for key, kind in wanted.items() if not _is_a(inner, key, kind)]:
        got = f"has no {absent[0]} that is a {wanted[absent[0]].__name__}"
    else:
        return inner["label"]
    raise ValueError(
        f"open_tfds_detection: the feature {objects_key!r} of {info.full_name} {got}; wants a "
        f"sequence with bbox, a BBoxFeature, and label, a ClassLabel; pass objects_key"
    )


def _has_integers(features: Any, key: str) -> bool:
    return key in features and bool(np.issubdtype(features[key].np_dtype, np.integer))


def _is_a(features: Any, key: str, kind: type) -> bool:
    return key in features and isinstance(features[key], kind)
