"""The fused C++ beyond what all methods share: sizes around its tiles, second derivatives."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import TOLERANCE, Case, assert_close, bound, scales, value_and_gradients

from condconv_jax import ops
from condconv_jax.ops.geometry import make_geometry
from condconv_jax.ops.methods.choose import choose

pytestmark = pytest.mark.skipif(
    not ops.native.available(), reason="no C++ compiler here, or CONDCONV_NATIVE=0"
)

# With AVX-512 the code takes 12 results, 32 columns, 256 rows of a kernel, 8 and 16 examples, 48 by
# 128 values of a gradient and 96 pixels at a time, and treats multiples of 1024 in another way:
# sizes on both sides of these.
SIZES = (
    Case((1, 3, 4, 16), (1, 1, 16, 32), 3),
    Case((9, 2, 2, 31), (1, 1, 31, 33), 2),
    Case((17, 1, 3, 257), (1, 1, 257, 15), 2),
    Case((2, 10, 10, 49), (1, 1, 49, 129), 2),
    Case((3, 3, 5, 1024), (1, 1, 1024, 17), 2),
    Case((13, 4, 3, 40), (3, 3, 40, 48), 5),
    Case((17, 2, 3, 40), (3, 3, 40, 20), 2),
    Case((2, 2, 2, 20), (1, 1, 20, 1024), 2),
    Case((2, 5, 5, 130), (3, 1, 130, 70), 1),
    Case((2, 9, 7, 17), (3, 3, 17, 19), 2, strides=2, padding=((2, 0), (1, 3))),
    Case((2, 6, 8, 5), (2, 4, 5, 64), 2, strides=(3, 1), kernel_dilation=(2, 1)),
    Case((2, 7, 7, 20), (1, 1, 20, 20), 2, strides=2),
    Case((2, 3, 3, 20), (1, 1, 20, 20), 2, padding=1),
)


@pytest.mark.parametrize("case", SIZES, ids=lambda case: f"{case.x_shape}{case.kernel_shape}")
def test_value_and_gradients_are_those_of_the_reference(case):
    arrays = case.arrays()
    got, want = (
        jax.jit(lambda *a, m=m: value_and_gradients(bound(case, m), a))(*arrays)
        for m in ("fused", "reference")
    )
    for g, w, size in zip(got, want, scales(bound(case, "mixture"), arrays), strict=True):
        assert_close(g, w, size, TOLERANCE["float32"], str(case))


@pytest.mark.parametrize("case", [SIZES[0], SIZES[7]], ids=["1x1", "strided"])
def test_second_derivatives_are_those_of_the_portable_method(case):
    arrays = case.arrays()
    directions = [jnp.flip(a) for a in arrays]

    def along(method):
        energy = lambda *arrays: jnp.sum(bound(case, method)(*arrays) ** 2)

        def slope(*arrays):
            gradients = jax.grad(energy, (0, 1, 2))(*arrays)
            return sum(jnp.vdot(g, d) for g, d in zip(gradients, directions, strict=True))

        return jax.jit(jax.grad(slope, (0, 1, 2)))

    for g, w in zip(along("fused")(*arrays), along("spatial")(*arrays), strict=True):
        # Sums of thousands of products in float32.
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5 * np.abs(w).max())


BITS = """
import os, sys
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[: int(sys.argv[1])])
import hashlib, jax, numpy as np
from conv_cases import Case, bound, value_and_gradients
for case in (Case((24, 6, 6, 24), (1, 1, 24, 40), 4), Case((9, 16, 16, 12), (1, 1, 12, 70), 2)):
    run = jax.jit(lambda *a: value_and_gradients(bound(case, "fused"), a))
    for result in run(*case.arrays()):
        print(hashlib.sha256(np.asarray(result).tobytes()).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to leave cores out here")
def test_the_same_bits_on_one_core_and_on_two():
    # Threads take tasks as they come, and their number decides how work is divided.
    command = [sys.executable, "-c", BITS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    one, two, again = (
        subprocess.run([*command, n], env=environment, capture_output=True, text=True, check=True)
        for n in ("1", "2", "2")
    )
    assert one.stdout.count("\n") == 8
    assert one.stdout == two.stdout == again.stdout


def test_xla_keeps_no_kernels_of_the_batch():
    case = Case((16, 4, 4, 64), (3, 3, 64, 64), 2)
    kernels = 16 * 9 * 64 * 64 * 4
    compiled = jax.jit(
        lambda *arrays: jax.grad(lambda *a: bound(case, "fused")(*a).sum(), (0, 1, 2))(*arrays)
    ).lower(*case.arrays())
    assert compiled.compile().memory_analysis().temp_size_in_bytes < kernels / 2


def test_nothing_to_add_up():
    x, dense = jnp.ones((2, 3, 0)), functools.partial(ops.cond_dense, method="fused")
    np.testing.assert_array_equal(
        dense(x, jnp.ones((2, 0, 4)), jnp.ones((2, 2))), np.zeros((2, 3, 4))
    )
    arrays = jnp.ones((2, 0, 5)), jnp.ones((3, 5, 4)), jnp.ones((2, 3))
    for g in jax.grad(lambda *a: dense(*a).sum(), (0, 1, 2))(*arrays):
        np.testing.assert_array_equal(g, jnp.zeros_like(g))


@pytest.mark.parametrize(
    ("batch", "size", "groups", "dtype", "want"),
    [
        (8, 14, 1, 4, "fused"),
        # Reading the experts takes longest there, ...
        (4, 14, 1, 4, "native"),
        # ... and for many examples a kernel that is used once is not worth mixing.
        (31, 1, 1, 4, "fused"),
        (32, 1, 1, 4, "mixture"),
        (8, 14, 2, 4, "spatial"),
        (8, 14, 1, 2, "pointwise"),
        ("b", 14, 1, 4, "pointwise"),
    ],
)
def test_where_it_is_chosen(batch, size, groups, dtype, want):
    shape = (batch, size, size, 64)
    geometry = make_geometry(
        "conv",
        shape,
        (1, 1, 64 // groups, 64),
        strides=1,
        padding="SAME",
        kernel_dilation=1,
        feature_group_count=groups,
    )
    assert choose(shape, 64, geometry, itemsize=dtype, backend="cpu") == want


@pytest.mark.parametrize(
    ("kernel", "want"),
    [
        ((1, 1, 32, 32), "fused"),
        ((1, 1, 31, 32), "pointwise"),
        ((1, 1, 32, 31), "pointwise"),
        ((3, 3, 8, 8), "fused"),
        ((3, 3, 7, 8), "mapped"),
    ],
)
def test_not_for_narrow_layers(kernel, want):
    shape = (8, 14, 14, kernel[2])
    geometry = make_geometry(
        "conv",
        shape,
        kernel,
        strides=1,
        padding="SAME",
        kernel_dilation=1,
        feature_group_count=1,
    )
    assert choose(shape, kernel[3], geometry, backend="cpu") == want
    assert choose(shape, kernel[3], geometry, backend="cpu", way="portable") != "fused"


def test_refusals(monkeypatch):
    grouped = Case((2, 4, 4, 4), (1, 1, 2, 4), 2, feature_group_count=2)
    with pytest.raises(ValueError, match="'fused' runs one group, not 2; use method='spatial'"):
        bound(grouped, "fused")(*grouped.arrays())
    monkeypatch.setattr("condconv_jax.ops.native.available", lambda: False)
    with pytest.raises(ValueError, match=r"'fused' needs a CPU, a C\+\+ compiler .*'portable'"):
        bound(SIZES[0], "fused")(*SIZES[0].arrays())
