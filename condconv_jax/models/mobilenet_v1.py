"""MobileNetV1, static and CondConv.

Layers are numbered as in the paper: 1 is the first convolution, 2 to 14 the thirteen separable
blocks, 15 the classifier. "Begin layer 7" then reads: blocks 6 to 13 and the classifier.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from condconv_jax.models.routing import RoutingOptions, RoutingPlan
from condconv_jax.nn import CondConv, CondDense, SqueezeExcite
from condconv_jax.nn.router import global_average_pool
from condconv_jax.ops import fan_out_normal

# Output channels at width 1.0 and stride of layers 2 to 14 (Howard et al. 2017, table 1).
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
CLASSIFIER = 15


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and pointwise convolution, each with batch norm and ReLU6.

    Attributes:
      features: output channels.
      stride: of the depthwise convolution.
      norm: makes a batch norm by name.
      num_experts: of both convolutions; 0 for a static block.
      squeeze_excite: bottleneck of a squeeze-and-excitation at the end, over the block's
        channels; 0 for none.
      dtype: of the computation.
      method: of both convolutions.
      top_k: experts that both mix for each example; None for all.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    num_experts: int = 0
    squeeze_excite: float = 0.0
    dtype: DTypeLike = jnp.float32
    method: str = "auto"
    top_k: int | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], routing: Float[Array, "b e"] | None
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns the block's output; both convolutions mix by the same routing."""
        conv = functools.partial(
            CondConv,
            num_experts=self.num_experts,
            use_bias=False,
            dtype=self.dtype,
            method=self.method,
            top_k=self.top_k,
        )
        c = x.shape[-1]
        depthwise = conv(
            c,
            (3, 3),
            strides=self.stride,
            feature_group_count=c,
            kernel_init=fan_out_normal(c),
            name="depthwise",
        )
        x = nn.relu6(self.norm(name="depthwise_bn")(depthwise(x, routing)))
        pointwise = conv(self.features, (1, 1), kernel_init=fan_out_normal(), name="pointwise")
        x = nn.relu6(self.norm(name="pointwise_bn")(pointwise(x, routing)))
        return squeeze_excite(x, self.squeeze_excite, self.dtype, name="se")


class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al. 2017) with CondConv layers.

    Attributes:
      num_classes: classes.
      width: multiplies all channels but the classes.
      num_experts: e of every CondConv layer; 0 or 1 for the static network.
      begin_layer: the first CondConv layer, 1 to 15; all later ones are CondConv too.
      only_layer: the one CondConv layer, 1 to 15, instead of `begin_layer`; 0 for none. The
        classifier is then static unless it is 15.
      cond_classifier: whether the classifier is among the CondConv layers after `begin_layer`.
      routing: how the layers get their routing weights.
      squeeze_excite: bottleneck of a squeeze-and-excitation at the end of layers 1 to 14, over
        the layer's channels; 0 for none. The authors' response adds SE "in every layer" without
        saying where in it; the output of each layer is our reading.
      dropout: rate before the classifier.
      early_strides: strides of layers 1, 3 and 5 (2 each in the paper); 1s keep small images from
        vanishing: of 28 to 32 pixels, (1, 1, 2) leaves 4x4 at the end.
      batch_norm_momentum: of the running statistics.
      dtype: of the computation; parameters, batch norm statistics, routing and the classifier are
        float32.
      method: how the convolutions run, a name in `ops.METHODS` or "auto".

    Source: arXiv 1704.04861 (network), arXiv 1904.04971 section 4.1 (CondConv layers).
    """

    num_classes: int = 1000
    width: float = 1.0
    num_experts: int = 0
    begin_layer: int = 7
    only_layer: int = 0
    cond_classifier: bool = True
    routing: RoutingOptions = RoutingOptions()
    squeeze_excite: float = 0.0
    dropout: float = 0.0
    early_strides: tuple[int, int, int] = (2, 2, 2)
    batch_norm_momentum: float = 0.9
    dtype: DTypeLike = jnp.float32
    method: str = "auto"

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b classes"]:
        """Returns logits in float32.

        Args:
          images: normalised images.
          train: whether batch norm uses the batch's statistics and dropout is on.

        Raises:
          ValueError: for an option out of its range.
        """
        conditional = self._conditional_layers()
        plan = RoutingPlan(self.routing, self.num_experts)
        top_k = self.routing.top_k or None

        def experts(layer: int) -> int:
            return self.num_experts if layer in conditional else 0

        def routing(x: Array, layer: int) -> Array | None:
            return plan(x, layer) if layer in conditional else None

        x = jnp.asarray(images, self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            dtype=self.dtype,
        )
        stem = CondConv(
            self._channels(32),
            (3, 3),
            experts(1),
            strides=self.early_strides[0],
            use_bias=False,
            dtype=self.dtype,
            kernel_init=fan_out_normal(),
            method=self.method,
            top_k=top_k,
            name="layer_1",
        )
        x = stem(x, routing(x, 1))
        x = nn.relu6(norm(name="layer_1_bn")(x))
        x = squeeze_excite(x, self.squeeze_excite, self.dtype, name="layer_1_se")
        for index, (channels, stride) in enumerate(BLOCKS):
            layer = index + 2
            block = SeparableBlock(
                self._channels(channels),
                self._stride(layer, stride),
                norm,
                experts(layer),
                self.squeeze_excite,
                self.dtype,
                self.method,
                top_k,
                name=f"layer_{layer}",
            )
            x = block(x, routing(x, layer))
        features = global_average_pool(x)
        # Routed before dropout, whose noise belongs to the features and not to the kernel.
        classifier_routing = routing(features, CLASSIFIER)
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        classifier = CondDense(
            self.num_classes,
            experts(CLASSIFIER),
            dtype=jnp.float32,
            method=self.method,
            top_k=top_k,
            name="classifier",
        )
        return classifier(features, classifier_routing)

    def _conditional_layers(self) -> frozenset[int]:
        """The numbers of the CondConv layers, after checking the options."""
        for name in ("begin_layer", "only_layer"):
            layer, first = getattr(self, name), 0 if name == "only_layer" else 1
            if not first <= layer <= CLASSIFIER:
                raise ValueError(
                    f"MobileNetV1: {name} is {layer}; pass {first} to {CLASSIFIER} "
                    "(1 is the first convolution, 15 the classifier)"
                )
        if self.num_experts < 0:
            raise ValueError(f"MobileNetV1: num_experts is {self.num_experts}; pass 0 or more")
        if self.width <= 0:
            raise ValueError(f"MobileNetV1: width is {self.width}; pass a positive number")
        if not 0 <= self.squeeze_excite <= 1:
            raise ValueError(
                f"MobileNetV1: squeeze_excite is {self.squeeze_excite}; pass 0 (none) to 1"
            )
        if min(self.early_strides) < 1:
            raise ValueError(
                f"MobileNetV1: early_strides is {self.early_strides}; pass those of layers 1, 3 "
                "and 5, at least 1 each"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"MobileNetV1: dropout is {self.dropout}; pass 0 (none) to below 1")
        if self.num_experts <= 1:
            return frozenset()
        if self.only_layer:
            return frozenset([self.only_layer])
        last = CLASSIFIER if self.cond_classifier else CLASSIFIER - 1
        return frozenset(range(self.begin_layer, last + 1))

    def _channels(self, channels: int) -> int:
        return max(1, round(channels * self.width))

    def _stride(self, layer: int, stride: int) -> int:
        return {3: self.early_strides[1], 5: self.early_strides[2]}.get(layer, stride)


def squeeze_excite(x: Array, ratio: float, dtype: DTypeLike, *, name: str) -> Array:
    """Returns x after squeeze-and-excitation with a bottleneck of ratio * channels; 0 is none."""
    if not ratio:
        return x
    return SqueezeExcite(max(1, round(x.shape[-1] * ratio)), dtype=dtype, name=name)(x)
