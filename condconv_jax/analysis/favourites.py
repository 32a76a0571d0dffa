"""The images that experts weigh most: what figure 6 of the paper shows."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from condconv_jax.analysis.routing import Labels, Weights, check_routing

PICTURES = 10  # of each expert
EXPERTS = 8  # rows at most


@dataclasses.dataclass(frozen=True)
class Favourites:
    """The images that some experts of a layer weigh most, heaviest first.

    Attributes:
      experts: their numbers (r,).
      weights: of the images (r, k).
      labels: of the images (r, k).
      pictures: the images (r, k, s, s, 3) uint8.
    """

    experts: np.ndarray
    weights: np.ndarray
    labels: np.ndarray
    pictures: np.ndarray


def top_images(routing: Weights, k: int) -> Int[np.ndarray, "e k"]:
    """Returns the rows of the k images that weigh each expert most, heaviest first.

    Images of equal weight come in their order, as many do where a sigmoid is saturated.

    Args:
      routing: weights (n, e).
      k: how many; fewer where there are fewer images.
    """
    check_routing(routing)
    return np.argsort(-routing, axis=0, kind="stable")[:k].T


def most_varied_experts(routing: Weights, k: int) -> Int[np.ndarray, " k"]:
    """Returns the k experts whose weights vary most over images, by their numbers.

    An expert that all images weigh alike has no favourites.
    """
    check_routing(routing)
    return np.sort(np.argsort(-routing.std(axis=0, dtype=np.float64), kind="stable")[:k])


def find_favourites(
    routing: Weights,
    labels: Labels,
    picture: Callable[[int], np.ndarray],
    *,
    experts: int = EXPERTS,
    pictures: int = PICTURES,
) -> Favourites:
    """Returns the favourite images of the experts whose weights vary most.

    Args:
      routing: weights (n, e).
      labels: class of each image (n,).
      picture: row -> its image, uint8 (s, s, 3), all of one size.
      experts: how many; all where there are fewer.
      pictures: of each; all images where there are fewer.
    """
    chosen = most_varied_experts(routing, experts)
    rows = top_images(routing, pictures)[chosen]
    read = {row: picture(row) for row in np.unique(rows).tolist()}
    return Favourites(
        experts=chosen,
        weights=routing[rows, chosen[:, None]],
        labels=labels[rows],
        pictures=np.stack([[read[row] for row in own] for own in rows.tolist()]),
    )
