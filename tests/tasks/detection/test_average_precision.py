"""COCO's measures: by hand, and equal to pycocotools'."""

import contextlib
import io
import sys

import numpy as np
import pytest

from condconv_jax.tasks.detection import average_precision, require_coco

EVERYTHING = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")


def examples(truth, found, crowd=(), size=(100, 200)):
    """One picture per list of (label, box) and of (label, score, box); crowd: (picture, index)."""
    n = len(truth)
    t, m = (max(1, *(len(boxes) for boxes in lists)) for lists in (truth, found))
    made = {
        "size": np.array([size] * n),
        "boxes": np.zeros((n, m, 4), np.float32),
        "scores": np.zeros((n, m), np.float32),
        "labels": np.full((n, m), -1),
        "true_boxes": np.zeros((n, t, 4), np.float32),
        "true_labels": np.full((n, t), -1),
        "crowd": np.zeros((n, t), bool),
        "area": np.zeros((n, t), np.float32),
    }
    for i in range(n):
        for j, (label, box) in enumerate(truth[i]):
            made["true_labels"][i, j], made["true_boxes"][i, j] = label, box
            made["area"][i, j] = (box[2] - box[0]) * (box[3] - box[1]) * size[0] * size[1]
        for j, (label, score, box) in enumerate(found[i]):
            made["labels"][i, j], made["scores"][i, j], made["boxes"][i, j] = (
                label,
                score,
                box,
            )
    for place in crowd:
        made["crowd"][place] = True
    return made


# Of 100 x 200 pixels: 20 x 40 = 800 (small), 50 x 100 = 5,000 (medium), 100 x 100 = 10,000 (large).
SMALL = [0.0, 0.0, 0.2, 0.2]
MEDIUM = [0.25, 0.25, 0.75, 0.75]
LARGE = [0.0, 0.5, 1.0, 1.0]


def test_perfect_detections():
    truth = [[(0, SMALL), (1, MEDIUM)], [(1, LARGE)], []]
    found = [[(label, 0.9, box) for label, box in boxes] for boxes in truth]
    got = average_precision(examples(truth, found), ["cat", "dog", "cow"])
    # A class without objects has no precision.
    names = [f"{measure}/{name}" for measure in ("ap", "ap50") for name in ("cat", "dog")]
    assert got == dict.fromkeys((*EVERYTHING, *names), 1.0)


def test_sizes_that_no_object_has_are_left_out():
    got = average_precision(examples([[(0, MEDIUM)]], [[(0, 0.5, MEDIUM)]]))
    assert got == dict.fromkeys(("ap", "ap50", "ap75", "ap_medium", "ar100"), 1.0)


def test_one_of_two_found():
    got = average_precision(examples([[(0, MEDIUM)], [(0, SMALL)]], [[(0, 0.9, MEDIUM)], []]))
    # Precision is 1 up to a recall of 1/2, which are 51 of the 101 recalls 0, 0.01, ..., 1.
    assert got["ap"] == pytest.approx(51 / 101, abs=1e-12)
    assert got["ar100"] == pytest.approx(0.5, abs=1e-12)
    assert (got["ap_medium"], got["ap_small"]) == (1, 0)


def test_a_wrong_detection_with_a_higher_score():
    found = [[(0, 0.9, LARGE), (0, 0.8, SMALL)]]
    got = average_precision(examples([[(0, SMALL)]], found))
    # The object is found by the second of two detections: precision 1/2 at every recall. Among the
    # small ones there is no first, which matches nothing and is large itself.
    assert got["ap"] == pytest.approx(0.5, abs=1e-12)
    assert got["ap_small"] == 1


def test_overlap_decides_what_is_right():
    # 0.61 of the object, and inside it: right at 0.50, 0.55 and 0.60 of the ten thresholds.
    part = [0.25, 0.25, 0.25 + 0.61 * 0.5, 0.75]
    got = average_precision(examples([[(0, MEDIUM)]], [[(0, 0.9, part)]]))
    assert (got["ap50"], got["ap75"]) == (1, 0)
    assert got["ap"] == pytest.approx(3 / 10, abs=1e-12)


def test_a_crowd_takes_detections_without_judging_them():
    truth = [[(0, SMALL), (0, LARGE)]]
    inside = [[0.0, 0.5, 0.3, 0.7], [0.5, 0.6, 0.9, 0.8]]
    found = [[(0, 0.9, inside[0]), (0, 0.8, inside[1]), (0, 0.7, SMALL)]]
    assert average_precision(examples(truth, found, crowd=[(0, 1)]))["ap"] == 1
    # As an object it would be missed, and they would be wrong: precision 1/3 up to recall 1/2.
    without = average_precision(examples(truth, found))
    assert without["ap"] == pytest.approx(51 / 101 / 3, abs=1e-12)


def test_no_detections():
    got = average_precision(examples([[(0, MEDIUM)], [(1, LARGE)]], [[], []]))
    assert got == dict.fromkeys(("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar100"), 0.0)


def test_detections_of_a_class_without_objects_do_not_count():
    got = average_precision(examples([[(1, LARGE)]], [[(1, 0.5, LARGE), (0, 0.9, LARGE)]]))
    assert got["ap"] == 1


def random_examples(seed, n=12, t=6, m=40, classes=4, shown=True):
    """Pictures of several sizes; detections near objects and elsewhere, one class never there."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.7, (n, t, 2))
    true_boxes = np.concatenate([corners, corners + rng.uniform(0.02, 0.5, (n, t, 2))], axis=-1)
    size = rng.integers(50, 600, (n, 2))
    true_labels = rng.integers(0, classes - 1, (n, t))
    true_labels[rng.uniform(size=(n, t)) < 0.3] = -1
    true_labels[0] = -1
    of = rng.integers(0, t, (n, m))
    boxes = np.take_along_axis(true_boxes, of[..., None], axis=1)
    boxes = boxes + rng.normal(0, 0.03, (n, m, 4))
    labels = np.take_along_axis(true_labels, of, axis=1)
    labels = np.where(rng.uniform(size=(n, m)) < 0.2, rng.integers(-1, classes, (n, m)), labels)
    sides = true_boxes[..., 2:] - true_boxes[..., :2]
    made = {
        "size": size,
        "boxes": boxes.astype(np.float32),
        # Some are equal, so that the order of equal ones matters.
        "scores": np.round(rng.uniform(size=(n, m)), 2).astype(np.float32),
        "labels": labels,
        "true_boxes": true_boxes.astype(np.float32),
        "true_labels": true_labels,
        "crowd": rng.uniform(size=(n, t)) < 0.2,
        # Of the object, which does not fill its box.
        "area": 0.7 * sides.prod(axis=-1) * size.prod(axis=-1)[:, None],
    }
    made["labels"][1] = -1
    return made


def by_pycocotools(made, classes):
    """As in pycocoDemo.ipynb, with everything in loops."""
    coco, evaluation = (
        pytest.importorskip("pycocotools.coco"),
        pytest.importorskip("pycocotools.cocoeval"),
    )
    truth, found = [], []
    for image in range(len(made["size"])):
        height, width = made["size"][image]
        pixels = np.array([height, width, height, width], np.float64)

        def bbox(box, pixels=pixels):
            top, left, bottom, right = box.astype(np.float64) * pixels
            return [left, top, max(right - left, 0), max(bottom - top, 0)]

        for j, label in enumerate(made["true_labels"][image]):
            if label >= 0:
                truth.append(
                    {
                        "id": len(truth) + 1,
                        "image_id": image,
                        "category_id": int(label),
                        "bbox": bbox(made["true_boxes"][image, j]),
                        "iscrowd": int(made["crowd"][image, j]),
                        "area": float(made["area"][image, j]),
                    }
                )
        for j, label in enumerate(made["labels"][image]):
            if label >= 0:
                found.append(
                    {
                        "image_id": image,
                        "category_id": int(label),
                        "bbox": bbox(made["boxes"][image, j]),
                        "score": float(made["scores"][image, j]),
                    }
                )
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = coco.COCO()
        annotated.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(len(made["size"]))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": truth,
        }
        annotated.createIndex()
        run = evaluation.COCOeval(annotated, annotated.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    stats = dict(zip(EVERYTHING[:6], run.stats[:6], strict=True), ar100=run.stats[8])
    precision = run.eval["precision"][..., 0, -1]
    for k in range(classes):
        stats[f"ap/{k}"], stats[f"ap50/{k}"] = precision[:, :, k].mean(), precision[0, :, k].mean()
    return {name: value for name, value in stats.items() if value > -1}


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed):
    made = random_examples(seed)
    got = average_precision(made, [str(k) for k in range(4)])
    want = by_pycocotools(made, 4)
    assert set(got) == set(want)
    assert {"ap", "ap/0", "ap50/2"} <= set(got)
    assert "ap/3" not in got
    assert 0.02 < got["ap"] < 0.9
    for name, value in want.items():
        # Means of the same numbers, in float64 and any order.
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_prints_nothing(capfd):
    average_precision(random_examples(0))
    assert capfd.readouterr() == ("", "")


def test_wrong_calls():
    made = random_examples(0)
    with pytest.raises(ValueError, match="have no area, crowd; pass size, boxes"):
        average_precision({k: v for k, v in made.items() if k not in ("area", "crowd")})
    with pytest.raises(ValueError, match=r"size is \(11, 2\), of 12 pictures.*pass \(12, 2\)"):
        average_precision({**made, "size": made["size"][1:]})
    with pytest.raises(ValueError, match=r"true_boxes is \(12, 5, 4\).*and 6 true boxes"):
        average_precision({**made, "true_boxes": made["true_boxes"][:, 1:]})
    for name in ("boxes", "scores"):
        with pytest.raises(ValueError, match=f"{name} of detections are not all finite"):
            average_precision({**made, name: made[name] * np.nan})
    for nothing in ({"true_labels": made["true_labels"] * 0 - 1}, {"crowd": made["crowd"] | True}):
        with pytest.raises(ValueError, match="12 pictures without an object other than crowds"):
            average_precision({**made, **nothing})
    with pytest.raises(ValueError, match="3 class_names, and label 3; pass one name per label"):
        average_precision(made, ["a", "b", "c"])


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"pip install 'condconv_jax\[coco\]'"):
        require_coco()
    with pytest.raises(ImportError, match="average_precision: faster-coco-eval is not installed"):
        average_precision(random_examples(0))
