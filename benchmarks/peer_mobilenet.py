"""CondConv-MobileNetV1 in PyTorch, of timm's layers: the same network as `models.mobilenet_v1`."""

from collections.abc import Callable
from typing import Any

from peers import import_timm, torch
from torch import nn
from torch.nn import functional

from condconv_jax.models.mobilenet_v1 import BLOCKS


class Conv(nn.Module):
    """A convolution with "same" padding, of timm's layer where it has experts."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        experts: int = 0,
        bias: bool = False,
    ):
        super().__init__()
        import_timm()
        from timm.layers import CondConv2d, create_conv2d

        padding = {"padding": "same"} if kernel > 1 else {}
        if experts:
            self.layer = CondConv2d(
                channels,
                features,
                kernel,
                stride=stride,
                groups=groups,
                bias=bias,
                num_experts=experts,
                **padding,
            )
        else:
            self.layer = create_conv2d(
                channels, features, kernel, stride=stride, groups=groups, bias=bias, **padding
            )
        self.experts = experts

    def forward(self, x: torch.Tensor, routing: torch.Tensor | None) -> torch.Tensor:
        """Returns the convolution; routing is None for a static one."""
        return self.layer(x, routing) if self.experts else self.layer(x)


class Block(nn.Module):
    """Depthwise 3x3 and pointwise convolution, each with batch norm and ReLU6."""

    def __init__(self, channels: int, features: int, stride: int, experts: int):
        super().__init__()
        self.router = nn.Linear(channels, experts) if experts else None
        self.depthwise = Conv(channels, channels, 3, stride, channels, experts)
        self.depthwise_bn = nn.BatchNorm2d(channels)
        self.pointwise = Conv(channels, features, experts=experts)
        self.pointwise_bn = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's output; both convolutions mix by the same routing."""
        routing = None
        if self.router is not None:
            routing = torch.sigmoid(self.router(x.mean((2, 3))))
        x = functional.relu6(self.depthwise_bn(self.depthwise(x, routing)))
        return functional.relu6(self.pointwise_bn(self.pointwise(x, routing)))


class MobileNetV1(nn.Module):
    """The network at a width, conditional from layer 7 on."""

    def __init__(self, width: float, experts: int, classes: int = 1000, begin_layer: int = 7):
        super().__init__()
        channels = round(32 * width)
        self.stem = Conv(3, channels, 3, 2)
        self.stem_bn = nn.BatchNorm2d(channels)
        blocks = []
        for layer, (features, stride) in enumerate(BLOCKS, start=2):
            features = round(features * width)
            blocks.append(Block(channels, features, stride, experts if layer >= begin_layer else 0))
            channels = features
        self.blocks = nn.Sequential(*blocks)
        last = experts if begin_layer <= len(BLOCKS) + 2 else 0
        self.router = nn.Linear(channels, last) if last else None
        self.classifier = Conv(channels, classes, experts=last, bias=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits (b, classes) of images (b, 3, h, w)."""
        x = functional.relu6(self.stem_bn(self.stem(images, None)))
        features = self.blocks(x).mean((2, 3))
        routing = None if self.router is None else torch.sigmoid(self.router(features))
        return self.classifier(features[:, :, None, None], routing).flatten(1)


def inference(model: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    """Returns a call of the network without gradients."""
    model.eval()

    def call() -> Any:
        with torch.inference_mode():
            return model(images)

    return call


def training_step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> Callable[[], Any]:
    """Returns a call of one step of SGD with Nesterov momentum on the cross-entropy."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def call() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return call
