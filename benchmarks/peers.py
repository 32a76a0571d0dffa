"""PyTorch's CondConv: timm's layer, which runs a batch as groups of one convolution."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from condconv_jax.performance.layers import Layer
from condconv_jax.performance.machine import describe

# Two settings before torch is imported, without which one side or the other is timed unfairly.
# Where its threads may move, the scheduler sometimes runs two of them on one core, each spinning
# until its time slice ends: 10 ms for a layer of 0.1. And binding them binds the importing thread
# to one core, which XLA's threads would inherit if they did not exist yet.
jax.devices()
MACHINE = describe()
os.environ.setdefault("OMP_PROC_BIND", "true")

import torch  # noqa: E402

MACHINE["torch"] = torch.__version__


def import_timm() -> Any:
    """Returns the module timm; a torchvision built for another torch lacks two operators."""
    try:
        import timm
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm
    return timm


def cond_conv(layer: Layer, num_experts: int) -> torch.nn.Module:
    """Returns timm's layer with padding "same", as TensorFlow and JAX pad."""
    import_timm()
    from timm.layers import CondConv2d

    return CondConv2d(
        layer.channels,
        layer.features,
        layer.kernel,
        stride=layer.stride,
        padding="same" if layer.kernel > 1 else 0,
        groups=layer.groups,
        num_experts=num_experts,
    )


def tensors(arrays: tuple[np.ndarray, ...]) -> list[torch.Tensor]:
    """(x, experts, routing, slope) in timm's layouts: NCHW, and experts (e, f*c/g*kh*kw)."""
    x, experts, routing, slope = (torch.from_numpy(a) for a in arrays)
    return [
        x.permute(0, 3, 1, 2).contiguous(),
        experts.permute(0, 4, 3, 1, 2).flatten(1).contiguous(),
        routing,
        slope.permute(0, 3, 1, 2).contiguous(),
    ]


def forward(module: torch.nn.Module, arrays: tuple[np.ndarray, ...]) -> Callable[[], Any]:
    """Returns a call of the layer without gradients."""
    x, experts, routing, _ = tensors(arrays)
    module.weight.data = experts

    def call() -> Any:
        with torch.inference_mode():
            return module(x, routing)

    return call


def gradients(module: torch.nn.Module, arrays: tuple[np.ndarray, ...]) -> Callable[[], Any]:
    """Returns a call of the layer and of its gradients by x, experts and routing."""
    x, experts, routing, slope = tensors(arrays)
    module.weight.data = experts
    x.requires_grad_()
    routing.requires_grad_()

    def call() -> Any:
        return torch.autograd.grad(module(x, routing), (x, module.weight, routing), slope)

    return call
