"""A detection set drawn by the tests: light squares and dark discs on noise, in COCO's layout."""

import json

import numpy as np
from PIL import Image

# A detector that trains in seconds.
DETECTOR = [
    "--config=configs/bccd/ssd300_mobilenet_v1.py:condconv",
    "--config.model.width=0.25",
    "--config.model.num_experts=2",
    "--config.model.begin_layer=14",
    "--config.data.image_size=48",
    "--config.data.max_boxes=4",
    "--config.detections.max_detections=10",
    "--config.batch_size=8",
    "--config.eval_batch_size=8",
    "--config.epochs=2",
    "--config.schedule.warmup_epochs=0.5",
    # So that boxes differ between pictures after so few steps.
    "--config.schedule.learning_rate=0.8",
    "--config.eval_every_epochs=1",
    "--config.keep_last=5",
    "--config.log_every=1",
]


CATEGORIES = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
HEIGHT, WIDTH = 48, 64


def write_detection_data(root, counts):
    """Writes a picture with two objects for each of the counts of a split, {"train": 16, ...}."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            picture = rng.integers(96, 160, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            for category in (1, 2):
                side = int(rng.integers(10, 24))
                top, left = int(rng.integers(HEIGHT - side)), int(rng.integers(WIDTH - side))
                window = picture[top : top + side, left : left + side]
                if category == 1:
                    window[:] = 230
                else:
                    y, x = np.mgrid[:side, :side] - (side - 1) / 2
                    window[y**2 + x**2 <= (side / 2) ** 2] = 20
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [left, top, side, side],
                    }
                )
            name = f"{number}.png"
            Image.fromarray(picture).save(root / split / name)
            images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root
