"""What routing weights say: how experts are used, and how much a class decides it.

Pure functions on the routing weights of one layer over a set of images. Axes: n images, e experts,
c classes. All is computed in float64.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

NEAR = 0.1  # a weight closer than this to 0 counts as near 0, to 1 as near 1

Weights = Float[np.ndarray, "n e"]
Labels = Int[np.ndarray, " n"]


def expert_use(routing: Weights) -> Float[np.ndarray, " e"]:
    """Returns the mean weight of each expert, (1/n) sum_i r[i, e]."""
    check_routing(routing)
    return routing.mean(axis=0, dtype=np.float64)


def share_near(routing: Weights, value: float, within: float = NEAR) -> float:
    """Returns the share of the weights with |r - value| < within, 0 to 1."""
    check_routing(routing)
    return float((np.abs(routing.astype(np.float64) - value) < within).mean())


def weight_histogram(
    routing: Weights, edges: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k_less_1"]:
    """Returns the share of the weights in each bin; weights outside count in the end bins.

    Args:
      routing: weights (n, e).
      edges: of the k - 1 bins, ascending; a bin holds its lower edge, the last both.
    """
    check_routing(routing)
    inside = np.clip(routing.astype(np.float64), edges[0], edges[-1])
    counts, _ = np.histogram(inside, bins=edges)
    return counts / routing.size


def mean_by_class(routing: Weights, labels: Labels, num_classes: int) -> Float[np.ndarray, "c e"]:
    """Returns the mean routing weights of each class.

    m[c, e] = (1/n_c) sum_{i: labels[i] = c} r[i, e], NaN for a class without images.

    Args:
      routing: weights (n, e).
      labels: class of each image (n,).
      num_classes: c.

    Raises:
      ValueError: if routing and labels disagree on n, or a label is not in 0..num_classes - 1.
    """
    check_routing(routing, labels)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"mean_by_class: labels are {labels.min()} to {labels.max()}, num_classes is "
            f"{num_classes}; pass labels from 0 to num_classes - 1"
        )
    totals = np.zeros((num_classes, routing.shape[1]))
    np.add.at(totals, labels, routing)
    counts = np.bincount(labels, minlength=num_classes)[:, None]
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def class_specificity(routing: Weights, labels: Labels) -> float:
    """Returns the share of the routing weights' variance that lies between classes, eta squared.

    eta^2 = sum_e sum_c n_c (m[c, e] - m[e])^2  /  sum_e sum_i (r[i, e] - m[e])^2

    where m[c, e] is the mean of expert e over the n_c images of class c and m[e] over all images.
    0: every class is routed alike on average; 1: all images of a class are routed alike. The sums
    over experts come before the division, so experts count by how much they vary; a layer whose
    weights do not vary at all has 0. It is the R^2 of predicting the weights from the class.

    Args:
      routing: weights (n, e).
      labels: class of each image (n,).

    Raises:
      ValueError: if there are no weights, or routing and labels disagree on n.
    """
    between, total = _sums_of_squares(routing, labels)
    return between / total if total else 0.0


def class_spread(routing: Weights, labels: Labels) -> float:
    """Returns how far a class's mean weight is from the mean of all, in units of weight.

    s = sqrt( (1 / (n E)) sum_e sum_c n_c (m[c, e] - m[e])^2 )

    the standard deviation of the class means, over classes (by their number of images) and
    experts: what one sees as contrast between the rows of a heat map. `class_specificity` is a
    share, and may be large where weights hardly vary at all; this is not.

    Args:
      routing: weights (n, e).
      labels: class of each image (n,).

    Raises:
      ValueError: as `class_specificity`.
    """
    between, _ = _sums_of_squares(routing, labels)
    return float(np.sqrt(between / routing.size))


def chance_specificity(labels: Labels) -> float:
    """Returns the `class_specificity` that shuffled labels have on average, for any weights.

    (C - 1) / (n - 1) for n images of C classes: a mean of n_c images still varies by chance.
    """
    classes, n = len(np.unique(labels)), len(labels)
    return (classes - 1) / (n - 1) if n > 1 else 0.0


def top_classes(by_class: Float[np.ndarray, "c e"], k: int = 3) -> list[list[int]]:
    """Returns, for each expert, the k classes that weigh it most, heaviest first.

    Args:
      by_class: from `mean_by_class`; classes without images are left out.
      k: how many; fewer where there are fewer classes.
    """
    present = np.flatnonzero(~np.isnan(by_class).any(axis=1))
    order = np.argsort(-by_class[present], axis=0, kind="stable")[:k]
    return [present[column].tolist() for column in order.T]


def most_specific_classes(by_class: Float[np.ndarray, "c e"], k: int) -> list[int]:
    """Returns the k classes whose mean routing is farthest from the average class's.

    The distance is sum_e (m[c, e] - mean_c m[c, e])^2. If there are no more than k classes with
    images, these in their order; else as `grouped_by_expert`.

    Args:
      by_class: from `mean_by_class`.
      k: how many.
    """
    present = np.flatnonzero(~np.isnan(by_class).any(axis=1))
    if len(present) <= k:
        return present.tolist()
    deviation = by_class[present] - by_class[present].mean(axis=0)
    chosen = np.argsort(-(deviation**2).sum(axis=1), kind="stable")[:k]
    return grouped_by_expert(by_class, present[chosen].tolist())


def grouped_by_expert(by_class: Float[np.ndarray, "c e"], classes: Sequence[int]) -> list[int]:
    """Returns classes sorted by the expert they weigh most above the average class.

    Those that are routed alike are then next to each other.

    Args:
      by_class: from `mean_by_class`.
      classes: some of those with images.
    """
    deviation = by_class[list(classes)] - np.nanmean(by_class, axis=0)
    best, height = deviation.argmax(axis=1), deviation.max(axis=1)
    return np.asarray(classes)[np.lexsort((-height, best))].tolist()


def _sums_of_squares(routing: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the sums of squares between classes and in all, over all experts."""
    check_routing(routing, labels)
    # Less the first row, so that equal weights differ by exactly 0 and not by rounding.
    shifted = routing.astype(np.float64) - routing[:1].astype(np.float64)
    centred = shifted - shifted.mean(axis=0)
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), routing.shape[1]))
    np.add.at(sums, index, centred)
    return float((sums**2 / counts[:, None]).sum()), float((centred**2).sum())


def check_routing(routing: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Raises ValueError unless routing weights are (n, e), with a label for each row."""
    if routing.ndim != 2 or 0 in routing.shape:
        raise ValueError(
            f"routing weights are {routing.shape}; pass (n, e), one row per image, at least one"
        )
    if labels is not None and labels.shape != routing.shape[:1]:
        raise ValueError(
            f"routing weights are {routing.shape}, labels {labels.shape}; pass one label per row"
        )
