import pytest

from condconv_jax import ops
from condconv_jax.ops.geometry import make_geometry
from condconv_jax.ops.methods import choose


@pytest.mark.parametrize(
    ("x", "kernel", "groups", "padding", "want"),
    [
        ((32, 14, 14, 512), (3, 3, 1, 512), 512, "SAME", "depthwise"),
        ((1, 14, 14, 512), (5, 5, 1, 1024), 512, "SAME", "depthwise"),
        ((32, 14, 14, 512), (1, 1, 1, 512), 512, "SAME", "depthwise"),
        # 8 MiB and 32 MiB of kernels.
        ((8, 14, 14, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((32, 14, 14, 512), (1, 1, 512, 512), 1, "SAME", "tiled"),
        ((32, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "mixture"),
        ((8, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "mixture"),
        ((7, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((1, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((8, 1, 2, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((32, 1, 1, 1), (1, 1, 1, 9), 1, "SAME", "mixture"),
        # A batch without a size, of a program being exported: the mixture exports.
        (("b", 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "mixture"),
        (("b", 14, 14, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        # 18 MiB and 72 MiB of kernels; maps of 196 positions below 256 features, 784 above 128.
        ((8, 14, 14, 256), (3, 3, 256, 256), 1, "SAME", "spatial"),
        ((32, 14, 14, 256), (3, 3, 256, 256), 1, "SAME", "tiled"),
        ((1, 7, 7, 2048), (3, 3, 2048, 2048), 1, "SAME", "spatial"),
        ((8, 28, 28, 128), (3, 3, 128, 128), 1, "SAME", "mapped"),
        (("b", 28, 28, 128), (3, 3, 128, 128), 1, "SAME", "mapped"),
        ((64, 28, 28, 128), (3, 3, 128, 128), 1, "SAME", "tiled"),
        ((32, 14, 14, 256), (3, 3, 64, 256), 4, "SAME", "spatial"),
        ((32, 14, 14, 256), (1, 1, 64, 256), 4, "SAME", "spatial"),
        ((32, 28, 28, 1), (3, 3, 1, 16), 1, "SAME", "mapped"),
    ],
)
def test_rule_on_a_cpu(x, kernel, groups, padding, want):
    geometry = make_geometry(
        "conv", x, kernel, strides=1, padding=padding, kernel_dilation=1, feature_group_count=groups
    )
    assert choose(x, kernel[3], geometry, backend="cpu", way="portable") == want
    assert ops.METHODS[want].refusal(x[3], geometry) is None


@pytest.mark.parametrize(
    ("batch", "itemsize", "backend", "way", "want"),
    [
        (8, 4, "cpu", "auto", "native"),
        (8, 4, "cpu", "portable", "depthwise"),
        # In C++ there is float32 only, ...
        (8, 2, "cpu", "auto", "depthwise"),
        (8, 4, "gpu", "auto", "depthwise"),
        # ... and a program that is being exported is to run anywhere.
        ("b", 4, "cpu", "auto", "depthwise"),
    ],
)
def test_cpp_where_it_was_compiled(monkeypatch, batch, itemsize, backend, way, want):
    geometry = make_geometry(
        "conv",
        (batch, 14, 14, 512),
        (3, 3, 1, 512),
        strides=1,
        padding="SAME",
        kernel_dilation=1,
        feature_group_count=512,
    )
    shape, keywords = (batch, 14, 14, 512), {"itemsize": itemsize, "backend": backend}
    monkeypatch.setattr("condconv_jax.ops.native.available", lambda: True)
    assert choose(shape, 512, geometry, way=way, **keywords) == want
    monkeypatch.setattr("condconv_jax.ops.native.available", lambda: False)
    assert choose(shape, 512, geometry, way=way, **keywords) == "depthwise"


@pytest.mark.parametrize(
    ("kernel", "groups", "want"),
    [
        ((1, 1, 32, 64), 1, "pointwise"),
        ((3, 3, 1, 32), 32, "depthwise"),
        ((1, 1, 1, 64), 32, "depthwise"),
        ((3, 3, 32, 64), 1, "spatial"),
        ((3, 3, 8, 64), 4, "spatial"),
    ],
)
def test_rule_for_other_runtimes(kernel, groups, want):
    x = ("b", 14, 14, 32)
    geometry = make_geometry(
        "conv", x, kernel, strides=1, padding="SAME", kernel_dilation=1, feature_group_count=groups
    )
    assert choose(x, kernel[3], geometry, way="translated") == want
    assert ops.METHODS[want].refusal(32, geometry) is None
