"""Pascal VOC's layout, which BCCD is published in, as COCO's, which training reads.

    git clone https://github.com/Shenggan/BCCD_Dataset
    python experiments/voc_to_coco.py BCCD_Dataset/BCCD --out=data/bccd

Reads ImageSets/Main/SPLIT.txt, Annotations/NAME.xml and JPEGImages/NAME.jpg; writes
instances_SPLIT.json and copies the pictures into SPLIT/. Classes are numbered in the order of
their names. Boxes stay as they are, those of no size too, which training names and leaves out;
"difficult" objects become crowds, in which nothing that is found counts as wrong.
"""

import argparse
import json
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts every split that is there; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="VOC", help="folder with Annotations/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the result")
    parsed = parser.parse_args(arguments)
    try:
        for split in convert(parsed.root, parsed.out):
            print(f"written: {parsed.out / f'instances_{split}.json'}")
    except (OSError, ValueError) as error:
        print(f"voc_to_coco.py: {error}", file=sys.stderr)
        return 1
    return 0


def convert(root: Path, out: Path) -> list[str]:
    """Writes COCO's files for a folder in VOC's layout; returns the splits.

    Args:
      root: holds ImageSets/Main, Annotations and JPEGImages.
      out: made if missing.

    Raises:
      FileNotFoundError: if there is no split, or a file that one names is missing.
      ValueError: if an annotation is no XML, or lacks an element.
    """
    lists = {split: root / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS}
    lists = {split: path for split, path in lists.items() if path.is_file()}
    if not lists:
        raise FileNotFoundError(
            f"{root / 'ImageSets' / 'Main'} has none of {', '.join(f'{s}.txt' for s in SPLITS)}; "
            "pass the folder with ImageSets/, Annotations/ and JPEGImages/"
        )
    parsed = {
        split: [
            _annotation(root, line.split()[0]) for line in path.read_text().splitlines() if line
        ]
        for split, path in lists.items()
    }
    names = sorted(
        {o["name"] for pictures in parsed.values() for p in pictures for o in p["objects"]}
    )
    for split, pictures in parsed.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            shutil.copyfile(root / "JPEGImages" / picture["file"], out / split / picture["file"])
        content = _coco(pictures, names)
        (out / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return list(parsed)


def _annotation(root: Path, name: str) -> dict[str, Any]:
    path = root / "Annotations" / f"{name}.xml"
    try:
        tree = ET.parse(path).getroot()
        width, height = (int(_text(tree, f"size/{side}")) for side in ("width", "height"))
        objects = [
            {
                "name": _text(item, "name"),
                "difficult": int(item.findtext("difficult", "0")),
                "corners": [
                    float(_text(item, f"bndbox/{side}"))
                    for side in ("xmin", "ymin", "xmax", "ymax")
                ],
            }
            for item in tree.iter("object")
        ]
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"{path}: {error}; mend the file or take it out of the split") from None
    return {"file": f"{name}.jpg", "width": width, "height": height, "objects": objects}


def _text(element: ET.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None:
        raise ValueError(f"<{element.tag}> has no <{path}>")
    return found.strip()


def _coco(pictures: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    number = {name: index for index, name in enumerate(names, 1)}
    images, annotations = [], []
    for index, picture in enumerate(pictures, 1):
        images.append(
            {
                "id": index,
                "file_name": picture["file"],
                "width": picture["width"],
                "height": picture["height"],
            }
        )
        for item in picture["objects"]:
            left, top, right, bottom = item["corners"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": number[item["name"]],
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": item["difficult"],
                }
            )
    categories = [{"id": n, "name": name} for name, n in number.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    sys.exit(main())
