"""Large kernels: mixed and used a tile of them at a time.

The kernels of a 1x1 layer of 1024 channels are 4 MiB for each example. Mixed for a whole batch
they are written to fresh memory and read again, which costs a CPU several times the arithmetic
they serve; a tile of at most `TILE_BYTES` stays in its caches. And training memory does not grow
with batch times kernel size.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import mapped, mixed
from condconv_jax.ops.methods.method import Method, refuse_groups
from condconv_jax.ops.methods.tiles import Op, divisor, over_examples, over_input_channels
from condconv_jax.ops.partition import vary_alike

# The kernels of one tile.
TILE_BYTES = 10 * 2**20
# Fewer rows of a kernel at a time make the matrix products too thin, ...
MIN_ROWS = 128
# ... fewer examples leave the experts read too often for the products they serve, ...
MIN_EXAMPLES = 8
# ... and more do not make mixing any faster.
MAX_EXAMPLES = 32


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f)."""
    method = mixed.suited(experts.shape[-1], geometry)
    x, experts, routing = vary_alike(x, experts.astype(x.dtype), routing)
    examples, channels = tile(x.shape, experts.shape[-1], geometry, x.dtype.itemsize)

    def whole(x: Array, experts: Array, routing: Array) -> Array:
        return method.run(x, experts, routing, geometry)

    op: Op = whole
    if channels != x.shape[3]:
        op = over_input_channels(op, channels)
    if examples != x.shape[0]:
        op = over_examples(op, examples)
    return op(x, experts, routing)


def tile(
    x_shape: Sequence[Any], features: int, geometry: Geometry, itemsize: int
) -> tuple[Any, int]:
    """Returns how many examples and how many input channels to take at a time."""
    batch, channels = x_shape[0], x_shape[3]
    # Nothing to divide: no examples, or no number of them, in a program that is being exported.
    if not isinstance(batch, int) or batch == 0:
        return batch, channels
    taps = geometry.kernel_size[0] * geometry.kernel_size[1]
    if mixed.suited(features, geometry) is mapped.METHOD:
        return divisor(batch, 1, TILE_BYTES / (taps * channels * features * itemsize)), channels
    examples = divisor(batch, MIN_EXAMPLES, MAX_EXAMPLES)
    bytes_per_channel = examples * taps * features * itemsize
    return examples, divisor(channels, MIN_ROWS / taps, TILE_BYTES / bytes_per_channel)


METHOD = Method(run, mixed.product, refuse_groups("tiled"))
