"""SSD on MobileNetV1, static and CondConv: boxes and classes at six scales.

Layers are numbered on from MobileNetV1's: 1 to 14 are its convolution and separable blocks, 15 to
18 the extra layers, each half as wide a picture as the one before, and 19 to 24 the predictors on
layers 12, 14, 15, 16, 17 and 18.
"""

import functools
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from jaxtyping import Array, Float

from condconv_jax.models.anchors import anchors_per_cell, make_anchors
from condconv_jax.models.layers import Layers
from condconv_jax.models.mobilenet_v1 import BLOCKS, GROUPS, separable_layers, strides_of
from condconv_jax.models.network import ForwardPass, Network, check_fraction
from condconv_jax.models.placement import Layout
from condconv_jax.nn import CondConv
from condconv_jax.ops import Routing

# Channels at width 1.0 of layers 15 to 18; each begins with a 1x1 convolution to half of them.
EXTRA_CHANNELS = (512, 256, 256, 128)
LEAST_CHANNELS = 16  # of their convolutions, at any width
# Layers with a predictor: the last of stride 16, the last of stride 32, and the extra ones.
PREDICTED = (12, 14, 15, 16, 17, 18)
FIRST_PREDICTOR = 19
# The share of anchors that are first taken for an object of a class, Lin et al., arXiv 1708.02002,
# section 4.1; with sigmoid losses the many empty anchors would else drown the others.
PRIOR = 0.01


class Predictions(NamedTuple):
    """What the network says of each anchor.

    Attributes:
      codes: (b, a, 4), the box relative to the anchor, as `tasks.detection.decode` takes it.
      logits: (b, a, 1 + classes); the first is the background's, of softmax losses only.
    """

    codes: Float[Array, "b a 4"]
    logits: Float[Array, "b a k"]


class ExtraLayer(nn.Module):
    """1x1 convolution to half the channels, 3x3 with stride 2; each with batch norm and ReLU6.

    Attributes:
      features: output channels.
      layers: makes the layers.
      conditional: whether both convolutions are conditional.
    """

    features: int
    layers: Layers
    conditional: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Routing | None
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the layer's output; both convolutions mix by the same routing."""
        layers = self.layers
        conv = functools.partial(layers.conv, conditional=self.conditional, routing=routing)
        x = conv(x, max(LEAST_CHANNELS, self.features // 2), 1, name="reduce")
        x = nn.relu6(layers.norm(x, name="reduce_bn"))
        x = conv(x, self.features, 3, stride=2, name="spatial")
        return nn.relu6(layers.norm(x, name="spatial_bn"))


class PredictionHead(nn.Module):
    """Codes and logits of the anchors of one feature map, each a 1x1 convolution.

    The biases are static: routing weights should not scale how rare objects are.

    Attributes:
      anchors: k, of a cell.
      classes: with the background.
      layers: makes the layers.
      conditional: whether both convolutions are CondConv.
    """

    anchors: int
    classes: int
    layers: Layers
    conditional: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Routing | None
    ) -> tuple[Float[Array, "b n 4"], Float[Array, "b n classes"]]:
        """Returns the predictions of h * w * k anchors, in at least float32."""
        codes = self._predict(x, routing, "boxes", 4, 0.0)
        prior = -float(np.log((1 - PRIOR) / PRIOR))
        return codes, self._predict(x, routing, "classes", self.classes, prior)

    @nn.nowrap  # whose name would stand in the scopes of what it makes
    def _predict(
        self, x: Array, routing: Routing | None, name: str, values: int, bias: float
    ) -> Array:
        layers = self.layers
        conv = CondConv(
            self.anchors * values,
            1,
            layers.num_experts if self.conditional else 0,
            use_bias=False,
            # tensorflow/models, samples/configs/ssd_mobilenet_v1_0.75_depth_300x300_*.config
            kernel_init=initializers.normal(0.01),
            # As of other networks' classifiers.
            dtype=jnp.promote_types(layers.dtype, jnp.float32),
            top_k=layers.top_k,
            method=layers.method,
            name=name,
        )
        y = conv(x, routing)
        b, h, w, _ = y.shape  # b may be symbolic, in a program that is being exported
        y = y.reshape(b, h * w, self.anchors * values)
        added = self.param(f"{name}_bias", initializers.constant(bias), (self.anchors * values,))
        return (y + added[None, None]).reshape(b, h * w * self.anchors, values)


class SSD300MobileNetV1(Network):
    """SSD300 on MobileNetV1; published with CondConv from layer 7 on, static predictors.

    Images need not have 300 pixels; anchors and predictions follow their size.

    Attributes, beside those of `Network`:
      num_classes: without the background; the paper's count has the 90 numbers of COCO's
        categories, of which 80 are in use.
      cond_classifier: whether the predictors are CondConv layers too.
      squeeze_excite: as of `MobileNetV1`, in its layers.
      min_scale: of the anchors on the finest map, as a share of the picture's side.
      max_scale: of those on the coarsest.

    Source: Liu et al., arXiv 1512.02325 (SSD); tensorflow/models, research/object_detection,
      models/ssd_mobilenet_v1_feature_extractor.py (which layers, the extra ones); arXiv 1904.04971,
      section 4.2 (CondConv). Which layers are conditional is not said there; this reading gives
      the published multiply-adds (docs/madds.md).
    """

    num_classes: int = 90
    cond_classifier: bool = False
    batch_norm_momentum: float = 0.97
    squeeze_excite: float = 0.0
    min_scale: float = 0.2
    max_scale: float = 0.95

    PUBLISHED: ClassVar = {"begin_layer": 7}
    TASK: ClassVar = "detection"
    IMAGE_SIZE: ClassVar = 300

    def layout(self) -> Layout:
        """Returns the numbered layers."""
        predictors = range(FIRST_PREDICTOR, FIRST_PREDICTOR + len(PREDICTED))
        extra = tuple(range(len(BLOCKS) + 2, FIRST_PREDICTOR))
        return Layout(
            (*GROUPS, extra),
            dict.fromkeys(predictors, ("cond_classifier", self.cond_classifier)),
            classifiers=len(PREDICTED),
        )

    @nn.nowrap
    def classifiers(self) -> tuple[str, ...]:
        """Returns the modules whose shapes depend on the classes, which other classes renew."""
        names = [f"predictor_{layer}" for layer in PREDICTED]
        return tuple(f"{name}/{part}" for name in names for part in ("classes", "classes_bias"))

    @nn.nowrap
    def backbone(self) -> tuple[str, ...]:
        """Returns the modules that a MobileNetV1 trained on classification has too."""
        numbers = range(1, len(BLOCKS) + 2)
        kinds = ("layer_{}", "layer_{}_bn", "layer_{}_se", "router_{}")
        return tuple(kind.format(number) for kind in kinds for number in numbers)

    @nn.nowrap
    def anchors(self, image_size: int | tuple[int, int]) -> np.ndarray:
        """Returns the anchors (a, 4) of the predictions, as `make_anchors`.

        Args:
          image_size: pixels, of a square or (height, width).
        """
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        sizes = list(zip(*(self._map_sizes(side) for side in sides), strict=True))
        return make_anchors(sizes, min_scale=self.min_scale, max_scale=self.max_scale)

    def _map_sizes(self, pixels: int) -> list[int]:
        """Cells of each predicted map along a side of so many pixels."""
        extra = range(len(BLOCKS) + 2, FIRST_PREDICTOR)
        strides = strides_of(self) | dict.fromkeys(extra, 2)
        found = []
        for layer in range(1, FIRST_PREDICTOR):
            pixels = -(-pixels // strides[layer])
            if layer in PREDICTED:
                found.append(pixels)
        return found

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool = False) -> Predictions:
        """Returns the predictions of all anchors, in at least float32.

        Args:
          images: normalised images.
          train: whether batch norm uses the batch's statistics and dropout is on.

        Raises:
          ValueError: for an option out of its range.
        """
        check_fraction("SSD300MobileNetV1", "squeeze_excite", self.squeeze_excite)
        step = ForwardPass(self, train=train)
        maps = {}
        for layer, x in separable_layers(self, step, images, self.squeeze_excite):
            maps[layer] = x
        for layer, channels in enumerate(EXTRA_CHANNELS, len(BLOCKS) + 2):
            extra = ExtraLayer(
                max(LEAST_CHANNELS, int(channels * self.width)),
                step.layers,
                layer in step.conditional,
                name=f"layer_{layer}",
            )
            x = maps[layer] = extra(x, step.route(x, layer))
        found = []
        counts = anchors_per_cell(len(PREDICTED))
        for number, (layer, count) in enumerate(zip(PREDICTED, counts, strict=True)):
            head = PredictionHead(
                count,
                1 + self.num_classes,
                step.layers,
                FIRST_PREDICTOR + number in step.conditional,
                name=f"predictor_{layer}",
            )
            x, routing = maps[layer], step.route(maps[layer], FIRST_PREDICTOR + number)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            found.append(head(x, routing))
        codes, logits = zip(*found, strict=True)
        return Predictions(jnp.concatenate(codes, axis=1), jnp.concatenate(logits, axis=1))
