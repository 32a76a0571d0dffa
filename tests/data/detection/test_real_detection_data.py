"""Two real data sets, whose counts their descriptions give."""

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data import detection

BCCD = {"train": (205, [2381, 214, 209]), "val": (87, [967, 87, 83]), "test": (72, [805, 71, 69])}
COCO = {"train2017": (130, 1209, 13, 80), "val2017": (128, 987, 10, 78)}


def counted(source):
    return np.bincount(source.annotations.labels, minlength=source.num_classes)


@pytest.mark.parametrize("split", BCCD)
def test_bccd(real_data, split):
    pictures, boxes = BCCD[split]
    source = detection.open_coco(split, path=str(real_data / "bccd"))
    assert source.class_names == ("RBC", "WBC", "Platelets")
    assert len(source) == pictures
    assert counted(source).tolist() == boxes
    assert source.remarks == ()
    assert source[0]["image"].shape == (480, 640, 3)


@pytest.mark.parametrize("split", COCO)
def test_coco(real_data, split):
    pictures, boxes, crowds, categories = COCO[split]
    source = detection.open_coco(split, path=str(real_data / "coco-small"))
    assert (len(source), source.num_classes) == (pictures, 80)
    assert (source.class_names[0], source.class_names[-1]) == ("person", "toothbrush")
    assert (source.category_ids[0], source.category_ids[-1]) == (1, 90)
    assert counted(source).sum() == boxes
    assert np.count_nonzero(counted(source)) == categories
    assert source.annotations.crowd.sum() == crowds
    assert source.remarks == ()


@pytest.mark.parametrize("name", ["bccd/train", "coco-small/train2017"])
def test_every_picture_goes_through(real_data, name):
    folder, split = name.split("/")
    source = detection.open_detection_source("coco", split, path=str(real_data / folder))
    transform = detection.make_detection_transforms(64, train=True, max_boxes=100)
    for index, sample in enumerate(source):
        found = transform(sample, np.random.default_rng(index))
        real = found["labels"] >= 0
        assert real.any() or not len(sample["boxes"])
        assert (detection.box_areas(found["boxes"][real]) > 0).all()
    transform = detection.make_detection_transforms(64, train=False, max_boxes=100)
    batches = data.eval_batches(source, transform, batch_size=32)
    assert sum(batch["mask"].sum() for batch in batches) == len(source)
