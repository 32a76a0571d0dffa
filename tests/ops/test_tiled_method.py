"""What "tiled" takes at a time, and the memory that it saves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import ops
from condconv_jax.ops.geometry import make_geometry
from condconv_jax.ops.methods import tiled

# Read before the tests of this folder make tiles small.
NAMES = ("TILE_BYTES", "MIN_ROWS", "MIN_EXAMPLES", "MAX_EXAMPLES")
SIZES = {name: getattr(tiled, name) for name in NAMES}
MIB = 2**20


@pytest.fixture(autouse=True)
def real_tiles(small_tiles, monkeypatch):
    """The sizes of the package."""
    for name, value in SIZES.items():
        monkeypatch.setattr(tiled, name, value)


def test_the_sizes_that_the_examples_below_are_worked_out_for():
    assert SIZES == {
        "TILE_BYTES": 10 * MIB,
        "MIN_ROWS": 128,
        "MIN_EXAMPLES": 8,
        "MAX_EXAMPLES": 32,
    }


@pytest.mark.parametrize(
    ("x", "kernel", "itemsize", "want"),
    [
        # MobileNetV1's 1x1 layers. 32 examples of one input channel are 32 * 512 * 4 bytes,
        # 64 KiB; 160 fit, and 128 divides 512.
        ((32, 14, 14, 512), (1, 1), 4, (32, 128)),
        ((64, 14, 14, 512), (1, 1), 4, (32, 128)),
        # 32 KiB in bfloat16: 320 fit.
        ((32, 14, 14, 512), (1, 1), 2, (32, 256)),
        # 128 KiB: 80 fit, but fewer than 128 rows are too thin.
        ((32, 7, 7, 1024), (1, 1), 4, (32, 128)),
        # 24 examples at once: 48 KiB, 213 fit.
        ((48, 14, 14, 512), (1, 1), 4, (24, 128)),
        # One example's kernel is 1 MiB. Primes of examples are not split; 37 times 2 KiB are
        # 74 KiB, 138 fit.
        ((1, 14, 14, 512), (1, 1), 4, (1, 512)),
        ((37, 14, 14, 512), (1, 1), 4, (37, 128)),
        # A prime number of channels is not split either.
        ((32, 14, 14, 509), (1, 1), 4, (32, 509)),
        # ResNet's 3x3 layers. Maps of 196 positions, below 256 features: by windows, 32 * 9 * 256
        # * 4 bytes, 288 KiB a channel; 35 fit, and at least 128 / 9 = 14.2 channels are 128 rows.
        ((32, 14, 14, 256), (3, 3), 4, (32, 32)),
        # 784 positions, above 128 features: kernel by kernel, 576 KiB each; 17 fit.
        ((64, 28, 28, 128), (3, 3), 4, (16, 128)),
        ((34, 28, 28, 128), (3, 3), 4, (17, 128)),
        ((37, 28, 28, 128), (3, 3), 4, (1, 128)),
    ],
)
def test_tile_golden(x, kernel, itemsize, want):
    features = 512 if x[3] == 509 else x[3]
    geometry = make_geometry(
        "conv",
        x,
        (*kernel, x[3], features),
        strides=1,
        padding="SAME",
        kernel_dilation=1,
        feature_group_count=1,
    )
    assert tiled.tile(x, features, geometry, itemsize) == want


def training_memory(method, batch, *, wrap=lambda op: op):
    """Bytes that the gradients of a 1x1 layer, 256 -> 256 on 2x2 maps, need beside themselves."""
    op = wrap(lambda x, experts, routing: ops.cond_conv(x, experts, routing, method=method))
    loss = lambda *arrays: (op(*arrays) ** 2).sum()
    shapes = (batch, 2, 2, 256), (4, 1, 1, 256, 256), (batch, 4)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_training_memory_does_not_grow_with_batch_times_kernel_size():
    # A kernel is 256 KiB, activations are 4: 64 more examples are 16 MiB of kernels.
    kernels = {64: 16 * MIB, 128: 32 * MIB}
    tiled, pointwise = (
        {batch: training_memory(method, batch) for batch in kernels}
        for method in ("tiled", "pointwise")
    )
    assert tiled[128] - tiled[64] < 1 * MIB
    # Kernels and their gradients of a tile of 8 MiB, against those of the whole batch.
    assert tiled[128] < 20 * MIB < kernels[128]
    assert pointwise[64] >= 2 * kernels[64]
    assert pointwise[128] >= 2 * kernels[128]


def test_a_checkpoint_does_not_do_it():
    # It mixes again instead of keeping, but still all kernels at once.
    assert training_memory("pointwise", 128, wrap=jax.checkpoint) >= 32 * MIB


def test_training_memory_of_tiles_smaller_than_one_example(monkeypatch):
    # By input channels: 8 examples of 16 channels are 128 KiB.
    monkeypatch.setattr(tiled, "TILE_BYTES", 128 * 2**10)
    monkeypatch.setattr(tiled, "MIN_ROWS", 16)
    monkeypatch.setattr(tiled, "MAX_EXAMPLES", 8)
    assert training_memory("tiled", 64) < 4 * MIB


def test_a_batch_without_a_size_is_not_split(unchecked):
    experts = jnp.arange(24.0).reshape(2, 1, 1, 3, 4)
    op = lambda x, routing: ops.cond_conv(x, experts, routing, method="tiled")
    (b,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((b, *rest), jnp.float32) for rest in ((2, 2, 3), (2,))]
    exported = jax.export.export(jax.jit(op))(*shapes)
    x, routing = jnp.cos(jnp.arange(36.0)).reshape(3, 2, 2, 3), jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(exported.call(x, routing), op(x, routing), rtol=1e-5, atol=1e-5)
