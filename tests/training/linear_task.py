"""A task small enough to check by hand: least squares on one weight vector."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax.runtime.metrics import Evaluation, sum_of


@dataclasses.dataclass(frozen=True)
class LinearTask:
    """y = x @ w; the loss also uses its key, so that a test sees which key it got."""

    features: int = 3
    noise: float = 0.1

    best_metric = "top1"

    def init(self, key):
        return {"w": jax.random.normal(key, (self.features,))}, {"steps": jnp.zeros(())}

    def loss(self, params, model_state, batch, key):
        noise = self.noise * jax.random.normal(key, (self.features,))
        errors = (batch["x"] @ (params["w"] + noise) - batch["y"]) ** 2
        metrics = {"loss": sum_of(errors)}
        return errors.mean(), ({"steps": model_state["steps"] + 1}, metrics)

    def evaluate(self, params, model_state, batch):
        errors = (batch["x"] @ params["w"] - batch["y"]) ** 2
        mask = batch["mask"] > 0
        sums = {"loss": sum_of(errors, mask), "top1": sum_of(errors < 1, mask)}
        return Evaluation(sums, {"error": errors, "mask": mask})

    def scores(self, examples):
        # Of all examples at once: no mean gives it.
        return {"largest": float(examples["error"][examples["mask"]].max())}


class Problem:
    """Samples numbered from 0, each a function of its number."""

    def __init__(self, batch_size: int = 16, features: int = 3, bad_from: int | None = None):
        self.batch_size, self.features, self.bad_from = batch_size, features, bad_from
        self.started_at: list[int] = []

    def rows(self, first: int, count: int) -> dict[str, np.ndarray]:
        x = np.stack(
            [np.random.default_rng(first + i).normal(size=self.features) for i in range(count)]
        ).astype(np.float32)
        return {"x": x, "y": x.sum(axis=1)}

    def train_batches(self, start: int):
        self.started_at.append(start)
        while True:
            batch = self.rows(start, self.batch_size)
            if self.bad_from is not None and start >= self.bad_from:
                batch["y"] = np.full_like(batch["y"], np.nan)
            yield batch
            start += self.batch_size

    def eval_batches(self):
        # 20 samples in batches of 16: the last is padded by 12.
        for first, real in ((0, 16), (16, 4)):
            batch = self.rows(1000 + first, 16)
            mask = (np.arange(16) < real).astype(np.float32)
            yield {**batch, "y": np.where(mask > 0, batch["y"], 1e9), "mask": mask}
