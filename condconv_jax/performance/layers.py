"""The fixed table of layers that benchmarks, the roofline and `condconv benchmark` share."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from condconv_jax import ops
from condconv_jax.ops.geometry import Geometry, make_geometry


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution of a network, with "SAME" padding.

    Attributes:
      name: how tables call it.
      size: height and width of the input.
      channels: of the input.
      features: channels of the output.
      kernel: height and width of the kernel.
      stride: of rows and columns.
      depthwise: one group per channel.
      network: where the paper has it.
    """

    name: str
    size: int
    channels: int
    features: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    network: str = ""

    @property
    def groups(self) -> int:
        """Feature groups."""
        return self.channels if self.depthwise else 1

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """One kernel, (kh, kw, c/g, f)."""
        return self.kernel, self.kernel, self.channels // self.groups, self.features

    def geometry(self, batch: int = 1) -> Geometry:
        """The convolution as the methods see it."""
        return make_geometry(
            "Layer",
            (batch, self.size, self.size, self.channels),
            self.kernel_shape,
            strides=self.stride,
            padding="SAME",
            kernel_dilation=1,
            feature_group_count=self.groups,
        )

    def op(self, method: str = "auto") -> Callable[[Array, Array, Array], Array]:
        """`ops.cond_conv` of this layer: (x, experts, routing) -> y."""

        def run(x: Array, experts: Array, routing: Array) -> Array:
            return ops.cond_conv(
                x,
                experts,
                routing,
                strides=self.stride,
                feature_group_count=self.groups,
                method=method,
            )

        return run

    def static_op(self, method: str = "auto") -> Callable[[Array, Array], Array]:
        """`ops.conv` of this layer: (x, kernel) -> y."""

        def run(x: Array, kernel: Array) -> Array:
            return ops.conv(
                x,
                kernel,
                strides=self.stride,
                feature_group_count=self.groups,
                method=method,
            )

        return run

    def arrays(
        self, batch: int, num_experts: int, dtype: Any = np.float32, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Random (x, experts, routing, gradient of y), scaled so that outputs are about 1."""
        rng = np.random.default_rng(seed)
        out = self.geometry().out_size
        fan_in = self.kernel * self.kernel * self.channels // self.groups

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)

        x = normal(batch, self.size, self.size, self.channels)
        experts = normal(num_experts, *self.kernel_shape) / np.sqrt(fan_in * num_experts / 4)
        routing = rng.random((batch, num_experts), np.float32)
        slope = normal(batch, *out, self.features)
        return x.astype(dtype), experts.astype(dtype), routing, slope.astype(dtype)


LAYERS: dict[str, Layer] = {
    layer.name: layer
    for layer in (
        Layer("pw64", 112, 32, 64, network="MobileNetV1 block 1"),
        Layer("pw128", 56, 128, 128, network="MobileNetV1 block 3"),
        Layer("pw128s", 14, 128, 128, network="MobileNetV1 0.25x block 8"),
        Layer("pw256", 28, 256, 256, network="MobileNetV1 block 5"),
        Layer("pw512", 14, 512, 512, network="MobileNetV1 block 8"),
        Layer("pw1024", 7, 1024, 1024, network="MobileNetV1 block 13"),
        Layer("expand96", 14, 96, 576, network="MobileNetV2 block 12"),
        Layer("project320", 7, 960, 320, network="MobileNetV2 block 17"),
        Layer("cls256", 1, 256, 1000, network="MobileNetV1 0.25x classifier"),
        Layer("cls1024", 1, 1024, 1000, network="MobileNetV1 classifier"),
        Layer("dw128", 56, 128, 128, 3, depthwise=True, network="MobileNetV1 block 3"),
        Layer("dw256s2", 28, 256, 256, 3, 2, depthwise=True, network="MobileNetV1 block 6"),
        Layer("dw512", 14, 512, 512, 3, depthwise=True, network="MobileNetV1 block 8"),
        Layer("dw1024", 7, 1024, 1024, 3, depthwise=True, network="MobileNetV1 block 13"),
        Layer("dw240k5s2", 28, 240, 240, 5, 2, depthwise=True, network="EfficientNet-B0 stage 5"),
        Layer("dw480k5", 14, 480, 480, 5, depthwise=True, network="EfficientNet-B0 stage 5"),
        Layer("dw1152k5", 7, 1152, 1152, 5, depthwise=True, network="EfficientNet-B0 stage 6"),
        Layer("dense128", 28, 128, 128, 3, network="ResNet-50 stage 2"),
        Layer("dense256", 14, 256, 256, 3, network="ResNet-50 stage 3"),
        Layer("dense512", 7, 512, 512, 3, network="ResNet-50 stage 4"),
    )
}


def with_gradients(op: Callable[..., Array], count: int) -> Callable[..., Any]:
    """Returns (*arguments, gradient of y) -> (y, gradients of all `count` arguments).

    As in a training step: y is computed too, where the gradients alone would not need it.
    """

    def run(*arrays: Array) -> Any:
        y, pull_back = jax.vjp(op, *arrays[:count])
        return y, pull_back(arrays[count])

    return run


def device_arrays(arrays: Sequence[np.ndarray]) -> list[Array]:
    """The arrays on the default device."""
    return [jnp.asarray(a) for a in arrays]
