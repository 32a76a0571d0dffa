"""Object detection with a single-shot detector."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from condconv_jax.data import normalize
from condconv_jax.names import unknown_name
from condconv_jax.nn import init_variables
from condconv_jax.runtime.metrics import Evaluation, Sum, sum_of
from condconv_jax.tasks.detection.average_precision import average_precision
from condconv_jax.tasks.detection.boxes import clip
from condconv_jax.tasks.detection.coder import decode, encode
from condconv_jax.tasks.detection.losses import (
    CLASS_LOSSES,
    focal_loss,
    hard_negative_loss,
    smooth_l1,
)
from condconv_jax.tasks.detection.matching import match_anchors
from condconv_jax.tasks.detection.nms import Detections, select_detections

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Detection:
    """Training of boxes and classes, evaluated by COCO's average precision.

    A batch holds "image" (b, h, w, 3) uint8, "boxes" (b, n, 4) in shares of height and width,
    "labels" (b, n) int32, -1 for filling, and "crowd" (b, n) bool. In evaluation also "mask" (b,),
    0 for examples that pad the last batch; "area" (b, n) and "size" (b, 2), of
    the pictures as they were before they were resized.

    Attributes:
      model: an unbound network, (b, h, w, 3) normalised images -> `Predictions`, with a method
        `anchors`.
      image_size: pixels, of square images.
      mean: channel means in 0..1.
      std: channel standard deviations in 0..1.
      class_names: by label.
      class_loss: "focal", or "hard_negative", the softmax loss of the first SSD.
      focal_alpha: weight of an anchor's own class in the focal loss.
      focal_gamma: of the focal loss.
      box_weight: weight of the boxes' loss beside the classes'.
      iou_threshold: of two boxes of a class that overlap more, the one with the lower score goes.
      score_threshold: detections below it go.
      max_detections: of a picture, and of one class in it.
    """

    model: nn.Module
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    class_loss: str = "focal"
    focal_alpha: float = 0.75
    focal_gamma: float = 2.0
    box_weight: float = 1.0
    iou_threshold: float = 0.6
    score_threshold: float = 1e-8
    max_detections: int = 100

    best_metric: ClassVar[str] = "ap"

    def __post_init__(self) -> None:
        if self.class_loss not in CLASS_LOSSES:
            raise unknown_name("Detection", "class_loss", self.class_loss, CLASS_LOSSES)

    def init(self, key: Array) -> tuple[Any, Any]:
        """Returns the network's parameters and its other state (batch norm statistics)."""
        self._anchors()  # whose scales may be wrong, before anything is computed
        images = jnp.zeros((1, self.image_size, self.image_size, len(self.mean)))
        variables = dict(init_variables(self.model, key, images))
        return variables.pop("params"), variables

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Sum]]]:
        """Returns the training loss, the new model state and the batch's metrics.

        Sum over anchors of class loss + box_weight * box loss, divided by the number of anchors
        with a box in the whole global batch (at least 1). Of micro-batches each divides by its
        own number, so that their mean weighs pictures a little differently.

        Args:
          params: parameters.
          model_state: batch norm statistics.
          batch: global batch.
          key: for dropout and what regularises experts.

        Source: tensorflow/models, research/object_detection, core/losses and meta_architectures/
          ssd_meta_arch.py (normalize_loss_by_num_matches).
        """
        (codes, logits), new_state = self.model.apply(
            {"params": params, **model_state},
            normalize(batch["image"], self.mean, self.std),
            train=True,
            mutable=[*model_state],
            rngs={"dropout": key},
        )
        parts, matches = self._losses(codes, logits, batch)
        b, total = len(codes), jnp.maximum(matches.sum(), 1).astype(jnp.float32)
        means = {name: values.sum() / total for name, values in parts.items()}
        loss = means["class_loss"] + self.box_weight * means["box_loss"]
        metrics = {
            # Each step counts by its examples, as in other tasks.
            name: Sum(value * b, jnp.int32(b))
            for name, value in {"loss": loss, **means}.items()
        }
        metrics["anchors_with_box"] = sum_of(matches)
        return loss, (dict(new_state), metrics)

    def evaluate(self, params: Any, model_state: Any, batch: Batch) -> Evaluation:
        """Returns sums of the losses, each picture's divided by its own anchors with a box.

        And for each example its detections and its boxes, from which `scores` computes AP.

        Args:
          params: parameters.
          model_state: batch norm statistics.
          batch: global batch; examples whose mask is 0 count nowhere.
        """
        codes, logits = self._predict(params, model_state, batch["image"])
        parts, matches = self._losses(codes, logits, batch)
        mask, total = batch["mask"] > 0, jnp.maximum(matches, 1).astype(jnp.float32)
        means = {name: values / total for name, values in parts.items()}
        loss = means["class_loss"] + self.box_weight * means["box_loss"]
        sums = {name: sum_of(v, mask) for name, v in {"loss": loss, **means}.items()}
        found = self._select(codes, logits)
        examples = {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels,
            "true_boxes": batch["boxes"],
            "true_labels": batch["labels"],
            **{name: batch[name] for name in ("crowd", "area", "size", "mask")},
        }
        return Evaluation(sums, examples)

    def scores(self, examples: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns COCO's average precisions over a whole set, as `average_precision` does.

        Args:
          examples: what `evaluate` returned of all batches, joined.
        """
        keep = examples["mask"] > 0
        kept = {name: values[keep] for name, values in examples.items() if name != "mask"}
        return average_precision(kept, self.class_names)

    def detect(self, params: Any, model_state: Any, images: Int[Array, "b h w c"]) -> Detections:
        """Returns what is found in uint8 images, best first.

        Args:
          params: parameters.
          model_state: batch norm statistics.
          images: of `image_size`.
        """
        return self._select(*self._predict(params, model_state, images))

    def score(
        self, params: Any, model_state: Any, images: Int[Array, "b h w c"]
    ) -> tuple[Float[Array, "b a 4"], Float[Array, "b a k"]]:
        """Returns the box of each anchor and its score for each class, before suppression.

        Args:
          params: parameters.
          model_state: batch norm statistics.
          images: of `image_size`.
        """
        return self._score(*self._predict(params, model_state, images))

    def select(self, boxes: Float[Array, "b a 4"], scores: Float[Array, "b a k"]) -> Detections:
        """Returns what suppression leaves of boxes and scores, best first."""
        return select_detections(boxes, scores, **self.suppression())

    def suppression(self) -> dict[str, Any]:
        """Returns the arguments of `select_detections`."""
        return {
            "iou_threshold": self.iou_threshold,
            "score_threshold": self.score_threshold,
            "max_per_class": self.max_detections,
            "max_detections": self.max_detections,
        }

    def routing(self, params: Any, model_state: Any, images: Array) -> dict[str, Any]:
        """Returns the routing weights (b, e) that each CondConv layer used, by module."""
        _, sown = self.model.apply(
            {"params": params, **model_state},
            normalize(images, self.mean, self.std),
            train=False,
            mutable=["routing"],
        )
        return dict(sown.get("routing", {}))

    def _predict(self, params: Any, model_state: Any, images: Array) -> Any:
        variables = {"params": params, **model_state}
        return self.model.apply(variables, normalize(images, self.mean, self.std), train=False)

    def _anchors(self) -> Float[Array, "a 4"]:
        return jnp.asarray(self.model.anchors(self.image_size))

    def _losses(
        self, codes: Float[Array, "b a 4"], logits: Float[Array, "b a k"], batch: Batch
    ) -> tuple[dict[str, Float[Array, " b"]], Int[Array, " b"]]:
        """Class and box loss of each picture, summed over anchors, and its anchors with a box."""
        anchors, boxes = self._anchors(), batch["boxes"]
        targets = match_anchors(anchors, boxes, batch["labels"] >= 0, batch["crowd"])
        matched, index = targets.box_index >= 0, jnp.maximum(targets.box_index, 0)
        labels = jnp.where(matched, jnp.take_along_axis(batch["labels"], index, axis=1), -1)
        wanted = encode(jnp.take_along_axis(boxes, index[..., None], axis=1), anchors[None])
        box_losses = jnp.where(matched, smooth_l1(codes, wanted), 0.0)
        if self.class_loss == "focal":
            class_losses = focal_loss(
                logits[..., 1:], labels, alpha=self.focal_alpha, gamma=self.focal_gamma
            )
            class_losses = jnp.where(targets.in_loss, class_losses, 0.0)
        else:
            class_losses = hard_negative_loss(logits, labels, targets.in_loss)
        parts = {"class_loss": class_losses.sum(axis=1), "box_loss": box_losses.sum(axis=1)}
        return parts, matched.sum(axis=1)

    def _select(self, codes: Float[Array, "b a 4"], logits: Float[Array, "b a k"]) -> Detections:
        return self.select(*self._score(codes, logits))

    def _score(
        self, codes: Float[Array, "b a 4"], logits: Float[Array, "b a k"]
    ) -> tuple[Float[Array, "b a 4"], Float[Array, "b a k"]]:
        if self.class_loss == "focal":
            scores = nn.sigmoid(_without_background(logits))
        else:
            scores = _without_background(nn.softmax(logits))
        return clip(decode(codes, self._anchors()[None])), scores


def _without_background(values: Float[Array, "b a k"]) -> Float[Array, "b a classes"]:
    """Not values[..., 1:], which with a symbolic batch is a gather that LiteRT does not have."""
    return lax.slice_in_dim(values, 1, values.shape[-1], axis=-1)
