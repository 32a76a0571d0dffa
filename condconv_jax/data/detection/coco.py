"""Detection data in COCO's layout: one annotation file per split, and its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from condconv_jax.data.decoding import CorruptSampleError, decode_image
from condconv_jax.data.detection.coco_json import CocoAnnotations, read_coco_json
from condconv_jax.data.detection.pictures import PictureFiles, find_pictures
from condconv_jax.data.detection.sample import DetectionSample
from condconv_jax.data.source import NamedSource, checked_index
from condconv_jax.names import unknown_name


@dataclass(frozen=True, eq=False, repr=False)
class CocoSource(NamedSource[DetectionSample]):
    """Pictures and their boxes, read and decoded one at a time.

    Attributes:
      annotations: of every picture.
      pictures: the files, in the order of the annotations.
      name: what error messages call the source.
      class_names: by label.
      category_ids: the annotation file's own number of each class, by label.
      remarks: what was left out or mended.

    Raises:
      CorruptSampleError: on reading, if a picture is damaged or not as large as the annotation
        file says.
      FileNotFoundError: on reading, if a picture was deleted since the source was opened.
    """

    annotations: CocoAnnotations
    pictures: PictureFiles
    name: str
    class_names: tuple[str, ...] = field(init=False)
    category_ids: tuple[int, ...] = field(init=False)
    remarks: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        for key in ("class_names", "category_ids", "remarks"):
            object.__setattr__(self, key, getattr(self.annotations, key))

    def __len__(self) -> int:
        return len(self.annotations.files)

    def __getitem__(self, index: int) -> DetectionSample:
        index = checked_index(self, index)
        data = self.annotations
        name = self.pictures.name(index)
        image = decode_image(self.pictures.read(index), name)
        height, width = data.sizes[index].tolist()
        if image.shape[:2] != (height, width):
            raise CorruptSampleError(
                f"CocoSource: {name} is {image.shape[0]}x{image.shape[1]} (height x width), the "
                f"annotation file says {height}x{width}; its boxes fit another picture"
            )
        boxes = slice(*data.offsets[index : index + 2].tolist())
        # Copies: what a caller changes in a sample must not change the next one of this index.
        return {
            "image": image,
            "boxes": data.boxes[boxes].copy(),
            "labels": data.labels[boxes].copy(),
            "crowd": data.crowd[boxes].copy(),
            "area": data.area[boxes].copy(),
            "image_id": int(data.image_ids[index]),
        }


def open_coco(split: str, *, path: str = "", categories: Sequence[str] = ()) -> CocoSource:
    """Returns one split of a data set in COCO's layout.

    <path>/annotations/instances_<split>.json, or <path>/instances_<split>.json
    <path>/<split>/<file_name>, or <path>/images/<split>/<file_name>, or the member
    <split>/<file_name> of <path>/images.zip or <path>/<split>.zip; the first that is there

    Labels are 0, 1, ... in the order of the categories' ids; `class_names` and `category_ids` say
    what they were. Samples come in the order of the annotation file, pictures without boxes
    among them. Boxes of zero or negative size or wholly outside their picture are left out, others
    are cut off at its edge; `remarks` counts them. `area` is the file's (in COCO, the mask's), the
    box's where it has none. Segmentations are not read.

    Args:
      split: as in the file's name, e.g. "train2017".
      path: the folder.
      categories: names of those to read, in the order of their labels; all if there are none.
        Pictures without any of them stay.

    Raises:
      FileNotFoundError: if the folder, the pictures or one of them is not there.
      ValueError: if the split is not there; a category is unknown; the annotation file is no
        JSON, lacks a key, has a value of another type, two pictures of one id, an id that does
        not fit int32, a box of an unknown picture or category or one that is not four finite
        numbers; or an archive cannot be read.
    Cost: with a file like train2017's (118,287 pictures, 860,001 boxes, 518 MB) 15 s, 1.3 GB while
      it is read and 24 MB of arrays after (one core of a busy Intel Xeon).
    """
    if not path:
        raise ValueError(
            "open_coco: got no path; pass the folder that holds instances_<split>.json or "
            "annotations/"
        )
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"open_coco: {root} is not a folder; pass the one that holds instances_<split>.json or "
            f"annotations/"
        )
    annotations = read_coco_json(_annotation_file(root, split), categories)
    pictures = find_pictures(root, split, annotations.files)
    return CocoSource(annotations, pictures, f"{split} of {root}")


def _annotation_file(root: Path, split: str) -> Path:
    for folder in (root / "annotations", root):
        if (file := folder / f"instances_{split}.json").is_file():
            return file
    found = sorted({*root.glob("annotations/instances_*.json"), *root.glob("instances_*.json")})
    splits = [file.stem.removeprefix("instances_") for file in found]
    raise unknown_name("open_coco", f"split of {root} (instances_<split>.json)", split, splits)
