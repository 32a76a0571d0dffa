import json

import numpy as np
import pytest
from PIL import Image


def coco_content():
    """Three pictures of 20x40 (height x width), 40x20 and 8x8; the last has no box."""
    sizes = {7: (20, 40), 3: (40, 20), 5: (8, 8)}
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
            for number, (height, width) in sizes.items()
        ],
        "categories": [{"id": 30, "name": "bee"}, {"id": 4, "name": "ant"}],
        "annotations": [
            # (left, top, width, height)
            box(100, 3, 30, [5, 10, 10, 20]),
            box(101, 7, 4, [10, 5, 20, 10], area=150.5),
            box(102, 3, 4, [0, 0, 20, 40], iscrowd=1),
        ],
    }


def box(number, image_id, category_id, bbox, **more):
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


class CocoFolder:
    """A data set in COCO's layout whose content a test may change before it opens it."""

    def __init__(self, root):
        self.root, self.content = root, coco_content()
        rng = np.random.default_rng(0)
        (root / "train").mkdir(parents=True)
        self.images = {}
        for entry in self.content["images"]:
            image = rng.integers(0, 256, (entry["height"], entry["width"], 3), dtype=np.uint8)
            self.images[entry["id"]] = image
            Image.fromarray(image).save(root / "train" / entry["file_name"])
        self.file = root / "instances_train.json"

    def add(self, *args, **more):
        self.content["annotations"].append(box(*args, **more))

    def write(self):
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps(self.content))
        return str(self.root)


@pytest.fixture
def coco(tmp_path):
    return CocoFolder(tmp_path / "insects")
