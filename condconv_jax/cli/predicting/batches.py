"""Predictions of pictures and frames, several at a time."""

from collections.abc import Iterable, Iterator

import numpy as np

from condconv_jax.cli.predicting.inputs import Failure, View
from condconv_jax.cli.predicting.predictions import Prediction, Select
from condconv_jax.cli.predicting.predictor import PicturePredictor

# Enough to keep a device busy, few enough for pictures to come one after another.
BATCH_SIZE = 8

Predicted = tuple[View, Prediction]


def predict_all(
    predictor: PicturePredictor, read: Iterable[View | Failure], select: Select
) -> Iterator[Predicted | Failure]:
    """Yields what is predicted of each picture, and the failures in their places.

    The last batch is filled up where a smaller one would be compiled anew.
    """
    waiting: list[View | Failure] = []
    ready: list[np.ndarray] = []
    for item in read:
        waiting.append(item)
        if isinstance(item, View):
            ready.append(predictor.prepare(item.image))
        if len(ready) == BATCH_SIZE:
            yield from _predict(predictor, waiting, ready, select)
            waiting, ready = [], []
    yield from _predict(predictor, waiting, ready, select)


def _predict(
    predictor: PicturePredictor,
    items: list[View | Failure],
    ready: list[np.ndarray],
    select: Select,
) -> Iterator[Predicted | Failure]:
    if ready:
        missing = 0 if predictor.any_size else BATCH_SIZE - len(ready)
        filling = [np.zeros_like(ready[0])] * missing
        results = predictor(np.stack([*ready, *filling]))
    index = 0
    for item in items:
        if isinstance(item, Failure):
            yield item
        else:
            yield item, select(results, index)
            index += 1
