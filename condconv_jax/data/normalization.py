"""Channel statistics of data sets, and the arithmetic that applies them.

Pipelines deliver uint8: a quarter of the bytes on the way to the device, where normalising is free.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of the red, green and blue channel, for pixels in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


STATISTICS: Mapping[str, ChannelStatistics] = {
    # All 60,000 training pictures of Fashion-MNIST, grey; the embedded ones differ in the third
    # decimal.
    "fashion_mnist": ChannelStatistics((0.2860, 0.2860, 0.2860), (0.3530, 0.3530, 0.3530)),
    # All 50,000 training pictures of CIFAR-100.
    "cifar100": ChannelStatistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # 16,000 training pictures of 50 of Tiny ImageNet's classes (every 4th in sorted order).
    "tiny_imagenet_50": ChannelStatistics((0.4763, 0.4503, 0.3990), (0.2768, 0.2671, 0.2789)),
    # The 4,800 generated training words as spectrograms, grey.
    "generated_words": ChannelStatistics((0.4093, 0.4093, 0.4093), (0.1237, 0.1237, 0.1237)),
    # The field's customary values, so those of published weights too: tensorflow/tpu,
    # models/official/efficientnet/efficientnet_builder.py, MEAN_RGB and STDDEV_RGB divided by 255.
    "imagenet": ChannelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Pixels to -1..1, as Inception and many networks after it; timm's CondConv-EfficientNets too.
    "inception": ChannelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # (x - 127) / 128 on 0..255: the official CondConv-EfficientNets (tensorflow/tpu,
    # models/official/efficientnet/condconv/efficientnet_condconv_builder.py).
    "efficientnet_condconv": ChannelStatistics((127 / 255,) * 3, (128 / 255,) * 3),
}


def normalize(images: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Returns (images / 255 - mean) / std in float32.

    Works on NumPy and JAX arrays alike, inside and outside jit: it is arithmetic only.

    Args:
      images: uint8 (..., c), a picture or any batch of them.
      mean: per channel (c,), in units of 0..1.
      std: per channel (c,), in units of 0..1, positive.

    Returns:
      float32 (..., c), of the kind of array that went in.

    Raises:
      ValueError: if the pixels are not uint8, mean or std has not one value per channel, or a
        std is not positive.
    """
    if images.dtype != np.uint8:
        raise ValueError(
            f"normalize: got pixels {images.dtype}; wants uint8 in 0..255, not normalised before"
        )
    means, stds = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    channels = images.shape[-1:]
    if means.shape != channels or stds.shape != channels:
        raise ValueError(
            f"normalize: got images {tuple(images.shape)}, {means.size} means and {stds.size} "
            f"standard deviations; wants one of each per channel, the last axis"
        )
    if not (stds > 0).all():
        raise ValueError(f"normalize: got std {tuple(std)}; wants positive values")
    # Full rank, because JAX may be told to refuse to add axes by itself (rank_promotion="raise").
    shape = (1,) * (images.ndim - 1) + channels
    scale = (1 / (255 * stds)).astype(np.float32).reshape(shape)
    shift = (means / stds).astype(np.float32).reshape(shape)
    return images.astype(np.float32) * scale - shift
