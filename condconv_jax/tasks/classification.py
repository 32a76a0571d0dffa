"""Image classification."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from condconv_jax.data import normalize
from condconv_jax.nn import init_variables
from condconv_jax.runtime.metrics import Evaluation, Sum, sum_of

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy training and top-1/top-5 evaluation of a network.

    A batch holds "image" (b, h, w, 3) uint8 and "label" (b,) int32; in evaluation also "mask"
    (b,), 0 for the examples that pad the last batch.

    Attributes:
      model: an unbound network, (b, h, w, 3) normalised images -> logits (b, classes). One with
        early exits sows the logits of all of them, (k, b, classes), into the collection `exits`.
      image_size: pixels, of square images.
      mean: channel means in 0..1.
      std: channel standard deviations in 0..1.
      label_smoothing: mass moved from the label to all classes evenly, 0 to 1.
      mixup: alpha of mixup; 0 for none.
    """

    model: nn.Module
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float = 0.0
    mixup: float = 0.0

    best_metric: ClassVar[str] = "top1"

    def init(self, key: Array) -> tuple[Any, Any]:
        """Returns the network's parameters and its other state (batch norm statistics)."""
        images = jnp.zeros((1, self.image_size, self.image_size, len(self.mean)))
        variables = dict(init_variables(self.model, key, images))
        return variables.pop("params"), variables

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Sum]]]:
        """Returns the training loss, the new model state and the batch's metrics.

        Batch norm uses the whole global batch: under jit on a mesh the mean over a batch sharded
        over devices is the mean over all of them.

        The loss of a network with early exits is the sum of those of all its exits, each with the
        weight 1 (arXiv 1703.09844, section 4). Its top1 is of the logits that it returns.

        With mixup every image is mixed with another one, and so are their labels; top1 is then of
        the label with the larger part.

        Args:
          params: parameters.
          model_state: batch norm statistics.
          batch: global batch.
          key: for dropout and mixup.
        """
        images, share = self._normalize(batch["image"]), jnp.float32(1)
        if self.mixup:
            key, share_key = jax.random.split(key)
            share = mixup_share(share_key, self.mixup)
            images = mix_neighbours(images, share)
        logits, new_state = self.model.apply(
            {"params": params, **model_state},
            images,
            train=True,
            mutable=[*model_state, "exits"],
            rngs={"dropout": key},
        )
        new_state = dict(new_state)
        exits = _all_exits(logits, new_state.pop("exits", {}))
        classes = jax.nn.one_hot(batch["label"], logits.shape[-1])
        if self.mixup:
            classes = mix_neighbours(classes, share)
        if self.label_smoothing:
            classes = optax.smooth_labels(classes, self.label_smoothing)
        losses = optax.softmax_cross_entropy(exits, classes[None]).sum(axis=0)
        metrics = {"loss": sum_of(losses), "top1": sum_of(_in_top(logits, batch["label"], 1))}
        return losses.mean(), (new_state, metrics)

    def evaluate(self, params: Any, model_state: Any, batch: Batch) -> Evaluation:
        """Returns the sums of loss (without label smoothing) and accuracies over a batch.

        Args:
          params: parameters.
          model_state: batch norm statistics.
          batch: global batch; examples whose mask is 0 count nowhere.
        """
        logits = self.predict(params, model_state, batch["image"])
        mask = batch["mask"] > 0
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        metrics = {
            "loss": sum_of(losses, mask),
            "top1": sum_of(_in_top(logits, batch["label"], 1), mask),
        }
        if logits.shape[-1] > 5:
            metrics["top5"] = sum_of(_in_top(logits, batch["label"], 5), mask)
        return Evaluation(metrics, {})

    def scores(self, examples: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns nothing: all metrics of this task are means over examples."""
        del examples
        return {}

    def predict(
        self, params: Any, model_state: Any, images: Float[Array, "b h w c"]
    ) -> Float[Array, "b classes"]:
        """Returns the logits of uint8 images in evaluation mode."""
        variables = {"params": params, **model_state}
        return self.model.apply(variables, self._normalize(images), train=False)

    def exits(
        self, params: Any, model_state: Any, images: Float[Array, "b h w c"]
    ) -> Float[Array, "k b classes"]:
        """Returns the logits of uint8 images at all exits; without early exits there is one."""
        logits, sown = self.model.apply(
            {"params": params, **model_state},
            self._normalize(images),
            train=False,
            mutable=["exits"],
        )
        return _all_exits(logits, sown.get("exits", {}))

    def routing(self, params: Any, model_state: Any, images: Array) -> dict[str, Any]:
        """Returns the routing weights (b, e) that each CondConv layer used, by module."""
        _, sown = self.model.apply(
            {"params": params, **model_state},
            self._normalize(images),
            train=False,
            mutable=["routing"],
        )
        return dict(sown.get("routing", {}))

    def _normalize(self, images: Array) -> Array:
        return normalize(images, self.mean, self.std)


def mixup_share(key: Array, alpha: float) -> Float[Array, ""]:
    """Returns the share that images keep of themselves, at least half of them.

    lambda ~ Beta(alpha, alpha), one for the whole batch, or 1 - lambda if that is larger. Every
    image is mixed with a partner and is the partner of another, so either choice mixes the same
    pairs; this one keeps each image's own label the heavier.

    Args:
      key: random key.
      alpha: of the distribution.

    Source: Zhang et al., arXiv 1710.09412, section 2.
    """
    share = jax.random.beta(key, alpha, alpha)
    return jnp.maximum(share, 1 - share)


def mix_neighbours(x: Float[Array, "b *n"], share: Float[Array, ""]) -> Float[Array, "b *n"]:
    """Returns share * x[b] + (1 - share) * x[b - 1].

    The neighbour in a shuffled batch is as random a partner as any, and on a mesh each device needs
    no more than one image of another's.

    Args:
      x: images or labels.
      share: in 0..1.
    """
    share = share.astype(x.dtype)
    return share * x + (1 - share) * jnp.roll(x, 1, axis=0)


def _all_exits(logits: Float[Array, "b c"], sown: Any) -> Float[Array, "k b c"]:
    """The logits of all exits that a network sowed; its only ones if it sowed none."""
    return jnp.concatenate(jax.tree.leaves(sown) or [logits[None]])


def _in_top(logits: Float[Array, "b c"], labels: Int[Array, " b"], k: int) -> Array:
    """Whether each label is among the k largest logits; ties count against it."""
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    # A constant network would otherwise be right about everything; and NaN is never right.
    ahead = (logits >= own).sum(axis=1) - 1
    return (ahead < k) & jnp.isfinite(own[:, 0])
