"""MSDNet (Huang et al. 2018) for small images: a dense network of several scales with early exits.

A comparator: it spends less on an example by leaving early, where CondConv spends the same on each
and computes something else.

Scales are numbered from 1, the finest, layers from 1 and exits from 1; the first layer comes after
the stem, which makes all scales. Every layer appends new channels to the features of each scale,
made from those of that scale and of the next finer one. Exits see the coarsest scale only.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, DTypeLike, Float

from condconv_jax.names import unknown_name
from condconv_jax.nn import CondConv, CondDense
from condconv_jax.nn.router import global_average_pool
from condconv_jax.ops import fan_out_normal

STEP_MODES = ("even", "linear")
# Options that are at least 1.
COUNTS = (
    "num_exits", "base", "step", "growth_rate", "initial_channels", "classifier_channels"
)  # fmt: skip

Make = Callable[..., nn.Module]


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU.

    Attributes:
      features: output channels.
      kernel_size: 3 or 1, of a square kernel.
      norm: makes a batch norm by name.
      stride: of the convolution.
      dtype: of the computation.
      method: of the convolution.
    """

    features: int
    kernel_size: int
    norm: Make
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    method: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out f"]:
        """Returns the unit's output."""
        conv = CondConv(
            self.features,
            self.kernel_size,
            num_experts=0,
            strides=self.stride,
            # As the official code: with "SAME" a strided window would start at the first pixel.
            padding=self.kernel_size // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=fan_out_normal(),
            method=self.method,
            name="conv",
        )
        return nn.relu(self.norm(name="bn")(conv(x)))


class Growth(nn.Module):
    """New channels of one scale: a 1x1 bottleneck and a 3x3 convolution.

    Attributes:
      features: new channels.
      bottleneck: width of the bottleneck over `features`; it is never wider than the input.
      unit: makes a `ConvUnit`.
      stride: 1 from the same scale, 2 from the next finer one.
    """

    features: int
    bottleneck: int
    unit: Make
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out f"]:
        """Returns the new channels."""
        width = min(x.shape[-1], self.bottleneck * self.features)
        x = self.unit(width, 1, name="bottleneck")(x)
        return self.unit(self.features, 3, stride=self.stride, name="conv")(x)


class ExitClassifier(nn.Module):
    """An exit: two strided convolutions, the mean over positions, a linear layer.

    Attributes:
      num_classes: classes.
      features: channels of both convolutions.
      unit: makes a `ConvUnit`.
    """

    num_classes: int
    features: int
    unit: Make

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Returns logits in float32."""
        for name in ("conv_1", "conv_2"):
            x = self.unit(self.features, 3, stride=2, name=name)(x)
        # The official 2x2 average pooling is this mean for images of 32 pixels.
        linear = CondDense(
            self.num_classes,
            num_experts=0,
            dtype=jnp.float32,
            # torch.nn.Linear's own, which the official code leaves in place.
            kernel_init=initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            name="linear",
        )
        return linear(global_average_pool(x))


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """What one layer makes.

    Attributes:
      first: the finest scale that is left.
      reduced: whether that is one less than before, and channels are reduced after the layer.
      channels: after the layer, for a growth factor of 1.
    """

    first: int
    reduced: bool
    channels: int


class MSDNet(nn.Module):
    """MSDNet for CIFAR (Huang et al. 2018).

    The defaults are the official code's network for anytime prediction on CIFAR-10: 22 layers, an
    exit after the 4th and every second one from there. Its network for budgeted batches is
    `num_exits=7, base=1, step=1, step_mode="linear"`: exits after layers 1, 3, 6, 10, ...

    Sows the logits of all exits, (k, b, classes) in float32, as `logits` into the collection
    `exits` where that is mutable.

    Attributes:
      num_classes: classes.
      num_exits: k, which are also the blocks of layers.
      base: layers before the first exit.
      step: layers between exits ("even"); how many more each span has than the last ("linear").
      step_mode: "even" or "linear", spans of step + 1, 2 * step + 1, ... layers.
      growth_rate: new channels of a layer, for a growth factor of 1.
      growth_factors: of the scales from the finest; their number is that of scales. All but the
        first times `growth_rate` are even: half comes from the finer scale.
      bottleneck_factors: width of a bottleneck over the new channels it serves, by the scale that
        it reads.
      initial_channels: of the stem, for a growth factor of 1.
      reduction: share of channels that is kept where the finest scale is dropped, which happens
        after each of as many equal parts of the depth as there are scales (network reduction);
        0 keeps all scales to the end, and all channels.
      classifier_channels: of an exit's convolutions.
      exit: whose logits the call returns, 1 to `num_exits`, or 0 for the last. In evaluation only
        what that exit needs is computed (lazy evaluation).
      batch_norm_momentum: of the running statistics.
      dtype: of the computation; parameters, batch norm statistics and logits are float32.
      method: how the convolutions run, a name in `ops.METHODS` or "auto".

    Source: arXiv 1703.09844, sections 4 and 5 and appendix A; where that is silent (order of
    layers in a unit, where a scale is dropped, padding, initialisers) github.com/gaohuang/MSDNet,
    models/JointTrainContainer.lua and MSDNet_Layer.lua, and its port by the authors,
    github.com/kalviny/MSDNet-PyTorch, models/msdnet.py. Unlike both, no layer is made at a scale
    from which no exit can be reached any more; the official CIFAR networks have none.
    """

    num_classes: int = 10
    num_exits: int = 10
    base: int = 4
    step: int = 2
    step_mode: str = "even"
    growth_rate: int = 6
    growth_factors: tuple[int, ...] = (1, 2, 4)
    bottleneck_factors: tuple[int, ...] = (1, 2, 4)
    initial_channels: int = 16
    reduction: float = 0.5
    classifier_channels: int = 128
    exit: int = 0
    batch_norm_momentum: float = 0.9
    dtype: DTypeLike = jnp.float32
    method: str = "auto"

    TASK: ClassVar = "classification"
    IMAGE_SIZE: ClassVar = 32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b classes"]:
        """Returns the logits of the exit in float32.

        Args:
          images: normalised images.
          train: whether batch norm uses the batch's statistics; all exits are then computed.

        Raises:
          ValueError: for an option out of its range.
        """
        self._refuse()
        all_exits = train or self.is_initializing() or self.is_mutable_collection("exits")
        exit_layers = self.exit_layers()
        wanted = self.exit or self.num_exits
        end = exit_layers[-1 if all_exits else wanted - 1]
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            dtype=self.dtype,
        )
        unit = functools.partial(ConvUnit, norm=norm, dtype=self.dtype, method=self.method)

        x = jnp.asarray(images, self.dtype)
        features: dict[int, Array] = {}
        for scale, factor in enumerate(self.growth_factors, 1):
            stride = 1 if scale == 1 else 2
            stem = unit(self.initial_channels * factor, 3, stride=stride, name=f"stem_{scale}")
            features[scale] = x = stem(x)
        logits = {}
        for layer, plan in enumerate(self._layer_plans()[:end], 1):
            features = self._grow(features, layer, plan, end, unit)
            if layer in exit_layers and (all_exits or layer == end):
                number = exit_layers.index(layer) + 1
                classifier = ExitClassifier(
                    self.num_classes, self.classifier_channels, unit, name=f"exit_{number}"
                )
                logits[number] = classifier(features[len(self.growth_factors)])
        if all_exits and not self.is_initializing():
            stacked, last = jnp.stack(list(logits.values())), lambda _, new: new
            self.sow("exits", "logits", stacked, init_fn=lambda: None, reduce_fn=last)
        return logits[wanted]

    @nn.nowrap
    def classifiers(self) -> tuple[str, ...]:
        """Returns the modules whose shapes depend on the classes, which other classes renew."""
        return tuple(f"exit_{number}/linear" for number in range(1, self.num_exits + 1))

    def exit_layers(self) -> tuple[int, ...]:
        """Returns the layer after which each exit stands."""
        grows = self.step_mode == "linear"
        spans = (self.step * i + 1 if grows else self.step for i in range(1, self.num_exits))
        return tuple(itertools.accumulate([self.base, *spans]))

    def _layer_plans(self) -> list[LayerPlan]:
        scales, depth = len(self.growth_factors), self.exit_layers()[-1]
        # Layers for which the finest scale stays the same.
        part = -(-depth // scales) if self.reduction else depth
        plans: list[LayerPlan] = []
        channels = self.initial_channels
        for layer in range(1, depth + 1):
            reduced = layer > 1 and (layer - 1) % part == 0
            channels += self.growth_rate
            if reduced:
                channels = max(1, int(self.reduction * channels))
            plans.append(LayerPlan(1 + (layer - 1) // part, reduced, channels))
        return plans

    @nn.nowrap  # Its name would stand in the scopes by which MADDs are counted.
    def _grow(
        self, features: dict[int, Array], layer: int, plan: LayerPlan, end: int, unit: Make
    ) -> dict[int, Array]:
        """The features by scale after a layer, of the scales that the exit at `end` needs."""
        scales, widths = len(self.growth_factors), self.bottleneck_factors
        # A finer scale reaches the coarsest one layer later for each scale between them.
        first = max(plan.first, scales - (end - layer))
        grown = {}
        for scale in range(first, scales + 1):
            factor, name = self.growth_factors[scale - 1], f"layer_{layer}_scale_{scale}"
            new = self.growth_rate * factor
            parts = [features[scale]]
            if scale > plan.first or plan.reduced:
                new //= 2
                finer = Growth(new, widths[scale - 2], unit, stride=2, name=f"{name}_finer")
                parts.append(finer(features[scale - 1]))
            same = Growth(new, widths[scale - 1], unit, name=f"{name}_same")
            parts.append(same(features[scale]))
            x = jnp.concatenate(parts, axis=-1)
            if plan.reduced:
                x = unit(plan.channels * factor, 1, name=f"{name}_reduction")(x)
            grown[scale] = x
        return grown

    def _refuse(self) -> None:
        if self.step_mode not in STEP_MODES:
            raise unknown_name("MSDNet", "step_mode", self.step_mode, STEP_MODES)
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"MSDNet: {name} is {getattr(self, name)}; pass at least 1")
        growths, bottlenecks = self.growth_factors, self.bottleneck_factors
        if len(growths) != len(bottlenecks) or min([*growths, *bottlenecks], default=0) < 1:
            raise ValueError(
                f"MSDNet: growth_factors is {growths}, bottleneck_factors {bottlenecks}; pass one "
                "of each for every scale, at least 1 each"
            )
        if any(self.growth_rate * factor % 2 for factor in growths[1:]):
            raise ValueError(
                f"MSDNet: growth_rate is {self.growth_rate}, growth_factors {growths}; pass such "
                "that all products but the first are even: half comes from the finer scale"
            )
        if not 0 <= self.reduction <= 1:
            raise ValueError(f"MSDNet: reduction is {self.reduction}; pass 0 (none) to 1")
        if not 0 <= self.exit <= self.num_exits:
            raise ValueError(
                f"MSDNet: exit is {self.exit}; pass 1 to {self.num_exits}, or 0 for the last"
            )
