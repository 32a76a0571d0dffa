"""Detection goes through the batches of classification, with all they promise."""

import itertools

import numpy as np
import pytest
from PIL import Image

from condconv_jax import data
from condconv_jax.data import detection

COUNT = 7  # a prime, so that no batch size or number of processes divides an epoch


@pytest.fixture
def numbered(coco):
    """Pictures whose number is their id and how many boxes they have."""
    coco.content["images"], coco.content["annotations"] = [], []
    for number in range(COUNT):
        file = f"{number}.png"
        image = np.random.default_rng(number).integers(0, 256, (12, 10 + number, 3), dtype=np.uint8)
        Image.fromarray(image).save(coco.root / "train" / file)
        entry = {"id": number, "file_name": file, "height": 12, "width": 10 + number}
        coco.content["images"].append(entry)
        for box in range(number):
            coco.add(10 * number + box, number, 4, [box, box, 5, 6])
    return coco


def opened(numbered, split="train"):
    return detection.open_detection_source("coco", split, path=numbered.write())


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def first(count, batches):
    result = list(itertools.islice(batches, count))
    batches.close()
    return result


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("start_step", [0, 3])
def test_processes_and_going_on_do_not_change_training(numbered, process_count, start_step):
    source = opened(numbered, "train[:4]+train[4:]")
    transform = detection.make_detection_transforms(16, train=True, max_boxes=4, flip="both")
    whole = first(6, data.train_batches(source, transform, batch_size=4, seed=1, threads=0))
    parts = [
        first(
            6 - start_step,
            data.train_batches(
                source,
                transform,
                batch_size=4,
                seed=1,
                start=4 * start_step,
                process_index=index,
                process_count=process_count,
            ),
        )
        for index in range(process_count)
    ]
    together = [
        {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        for batches in zip(*parts, strict=True)
    ]
    assert_equal(together, whole[start_step:])


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_sees_every_picture_once(numbered, process_count):
    source = opened(numbered)
    transform = detection.make_detection_transforms(16, train=False, max_boxes=COUNT)
    parts = [
        list(
            data.eval_batches(
                source,
                transform,
                batch_size=4,
                process_index=index,
                process_count=process_count,
            )
        )
        for index in range(process_count)
    ]
    seen = []
    for batches in zip(*parts, strict=True):
        for batch in batches:
            rows = 4 // process_count
            assert batch["boxes"].shape == (rows, COUNT, 4)
            assert batch["size"].shape == (rows, 2)
            real = batch["mask"] == 1
            assert not batch["boxes"][~real].any()
            seen += batch["image_id"][real].tolist()
            counts = (batch["labels"] >= 0).sum(axis=1)[real]
            np.testing.assert_array_equal(counts, batch["image_id"][real])
            np.testing.assert_array_equal(batch["size"][real, 1], 10 + batch["image_id"][real])
    assert seen == list(range(COUNT))


def test_damaged_pictures_are_masked_out(numbered):
    (numbered.root / "train" / "2.png").write_bytes(b"broken")
    messages = []
    source = data.SkippingSource(opened(numbered), 1, messages.append)
    transform = detection.make_detection_transforms(16, train=False, max_boxes=COUNT)
    (batch,) = data.eval_batches(source, transform, batch_size=8)
    assert batch["mask"].tolist() == [1, 1, 0, 1, 1, 1, 1, 0]
    assert len(messages) == 1
    transform = detection.make_detection_transforms(16, train=True, max_boxes=COUNT)
    batches = data.train_batches(source, transform, batch_size=COUNT, seed=0)
    assert next(batches)["image"].shape == (COUNT, 16, 16, 3)


def test_too_many_boxes_end_an_evaluation(numbered):
    transform = detection.make_detection_transforms(16, train=False, max_boxes=COUNT - 2)
    with pytest.raises(ValueError, match=r"image_id 6 has 6 boxes, max_boxes is 5"):
        list(data.eval_batches(opened(numbered), transform, batch_size=4))
