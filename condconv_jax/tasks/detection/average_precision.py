"""COCO's average precision of detections."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The last axes of each array that `average_precision` takes.
SHAPES = {
    "size": (2,),
    "boxes": ("m", 4),
    "scores": ("m",),
    "labels": ("m",),
    "true_boxes": ("t", 4),
    "true_labels": ("t",),
    "crowd": ("t",),
    "area": ("t",),
}

# COCO's own, as they lie in an evaluation's arrays.
AREAS = ("all", "small", "medium", "large")
THRESHOLDS = {"50": 0, "75": 5}  # of 0.50, 0.55, ..., 0.95


def average_precision(
    examples: Mapping[str, np.ndarray], class_names: Sequence[str] | None = None
) -> dict[str, float]:
    """Returns COCO's measures of the detections in a whole set of pictures.

    ap: precision at a recall of 0, 0.01, ..., 1, averaged over them, over the classes, and over ten
    thresholds of what overlap makes a detection right, 0.50 to 0.95. ap50 and ap75 are of one
    threshold; ap_small, ap_medium and ap_large of objects up to 32^2, up to 96^2 and above, in
    pixels^2. ar100 is the share of objects found by 100 detections of a class in each picture,
    averaged alike. In a crowd region detections are neither right nor wrong.

    Args:
      examples: arrays over the n pictures of the set, each of them once (leave out what fills the
        last batch):
        "size" (n, 2), height and width of the original picture in pixels;
        "boxes" (n, m, 4) as (top, left, bottom, right) in shares of it, "scores" (n, m) and
        "labels" (n, m), -1 where there is no detection, as `select_detections` returns them;
        "true_boxes" (n, t, 4) and "true_labels" (n, t), likewise; "crowd" (n, t) bool, whether a
        box is a region of several objects; "area" (n, t) in pixels^2 of the original picture.
      class_names: the name of each label; with them the result has each class' ap and ap50 too.

    Returns:
      Each of 0..1: "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100", and with
      `class_names` "ap/NAME" and "ap50/NAME". What there are no objects for, such as "ap_small"
      where all are large, is left out. Objects of which none is found give 0.

    Raises:
      ImportError: if faster-coco-eval is missing.
      ValueError: if an array is missing or its shape does not fit, if boxes or scores are not
        finite, if a label has no name, or if there is no object (other than crowds) in all the
        set.

    Source: Lin et al., arXiv 1405.0312, and cocodataset.org/#detection-eval, by faster-coco-eval,
      which gives the numbers of pycocotools.
    """
    require_coco()
    from faster_coco_eval import COCO, COCOeval_faster

    examples = _checked(examples)
    labels = _labels(examples, class_names)
    pictures = {
        "images": [{"id": i} for i in range(len(examples["size"]))],
        "categories": [{"id": label, "name": str(label)} for label in labels],
    }
    truth = COCO({**pictures, "annotations": _objects(examples)}, print_function=_silent)
    found = COCO({**pictures, "annotations": _detections(examples)}, print_function=_silent)
    evaluation = COCOeval_faster(truth, found, iouType="bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    return _measures(
        # Of the evaluation's limits of detections the last is 100.
        np.asarray(evaluation.eval["precision"])[..., -1],
        np.asarray(evaluation.eval["recall"])[..., -1],
        [] if class_names is None else class_names,
    )


def require_coco() -> None:
    """Checks that detections can be evaluated, before hours are spent on what makes them.

    Raises:
      ImportError: if faster-coco-eval is missing, with the command that installs it.
    """
    try:
        import faster_coco_eval  # noqa: F401  only whether it is there
    except ImportError as error:
        raise ImportError(
            "average_precision: faster-coco-eval is not installed; install the extra with "
            "pip install 'condconv_jax[coco]'"
        ) from error


def _measures(precision: np.ndarray, recall: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """All measures.

    Args:
      precision: (thresholds, recalls, classes, areas), -1 for classes without objects.
      recall: (thresholds, classes, areas), likewise.
      names: of the classes to report one by one.
    """
    values = {"ap": precision[..., 0]}
    values |= {f"ap{name}": precision[i, ..., 0] for name, i in THRESHOLDS.items()}
    values |= {f"ap_{name}": precision[..., i] for i, name in enumerate(AREAS) if i}
    values["ar100"] = recall[..., 0]
    values |= {f"ap/{name}": precision[:, :, i, 0] for i, name in enumerate(names)}
    values |= {f"ap50/{name}": precision[THRESHOLDS["50"], :, i, 0] for i, name in enumerate(names)}
    defined = {name: v[v > -1] for name, v in values.items()}
    return {name: float(v.mean()) for name, v in defined.items() if v.size}


def _checked(examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, if they belong together."""
    missing = sorted(set(SHAPES) - set(examples))
    if missing:
        raise ValueError(
            f"average_precision: examples have no {', '.join(missing)}; pass {', '.join(SHAPES)}"
        )
    arrays = {name: np.asarray(examples[name]) for name in SHAPES}
    axes = {"n": len(arrays["labels"]), "m": arrays["scores"].shape[-1]}
    axes["t"] = arrays["true_labels"].shape[-1]
    for name, shape in SHAPES.items():
        wanted = (axes["n"], *(axes[s] if isinstance(s, str) else s for s in shape))
        if arrays[name].shape != wanted:
            raise ValueError(
                f"average_precision: {name} is {arrays[name].shape}, of {axes['n']} pictures with "
                f"{axes['m']} detections and {axes['t']} true boxes at most; pass {wanted}"
            )
    there = arrays["labels"] >= 0
    for name in ("boxes", "scores"):
        if not np.isfinite(arrays[name][there]).all():
            raise ValueError(
                f"average_precision: {name} of detections are not all finite; pass finite ones, "
                "or -1 as their labels"
            )
    if not ((arrays["true_labels"] >= 0) & ~arrays["crowd"].astype(bool)).any():
        raise ValueError(
            f"average_precision: {axes['n']} pictures without an object other than crowds have no "
            "precision; pass pictures with true boxes"
        )
    return arrays


def _labels(examples: Mapping[str, np.ndarray], names: Sequence[str] | None) -> list[int]:
    """The labels to evaluate, in order."""
    used = np.union1d(examples["labels"], examples["true_labels"])
    used = used[used >= 0]
    if names is None:
        return used.tolist()
    if used[-1] >= len(names):
        raise ValueError(
            f"average_precision: there are {len(names)} class_names, and label {used[-1]}; pass "
            "one name per label"
        )
    return list(range(len(names)))


def _objects(examples: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    annotations = _annotations(examples, "true_boxes", "true_labels")
    there = examples["true_labels"] >= 0
    crowd, area = examples["crowd"][there].tolist(), examples["area"][there].tolist()
    for annotation, is_crowd, pixels in zip(annotations, crowd, area, strict=True):
        annotation |= {"iscrowd": int(is_crowd), "area": pixels}
    return annotations


def _detections(examples: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    annotations = _annotations(examples, "boxes", "labels")
    scores = examples["scores"][examples["labels"] >= 0].tolist()
    for annotation, score in zip(annotations, scores, strict=True):
        _, _, width, height = annotation["bbox"]
        annotation |= {"score": score, "area": width * height, "iscrowd": 0}
    return annotations


def _annotations(examples: Mapping[str, np.ndarray], boxes: str, labels: str) -> list[dict]:
    """What is at the labels that are not -1, in COCO's form, without what is not of every box."""
    there = examples[labels] >= 0
    picture = np.nonzero(there)[0]
    height, width = examples["size"][picture].astype(np.float64).T
    top, left, bottom, right = examples[boxes][there].astype(np.float64).T
    y, x = top * height, left * width
    sizes = np.maximum(bottom * height - y, 0), np.maximum(right * width - x, 0)
    columns = zip(
        picture.tolist(),
        examples[labels][there].tolist(),
        np.stack([x, y, sizes[1], sizes[0]], axis=1).tolist(),
        strict=True,
    )
    # Numbered from 1: in COCO's evaluation 0 stands for "matches nothing".
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box}
        for i, (image, label, box) in enumerate(columns, 1)
    ]


def _silent(*_: object) -> None:
    """Takes what the evaluation prints."""
