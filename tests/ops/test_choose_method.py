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
        ((32, 14, 14, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((32, 7, 7, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((32, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "mixture"),
        ((8, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "mixture"),
        ((7, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((1, 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((32, 1, 2, 512), (1, 1, 512, 512), 1, "SAME", "pointwise"),
        ((32, 1, 1, 1), (1, 1, 1, 9), 1, "SAME", "mixture"),
        # A batch without a size, of a program being exported: the mixture exports.
        (("b", 1, 1, 512), (1, 1, 512, 512), 1, "SAME", "mixture"),
        ((32, 14, 14, 256), (3, 3, 256, 256), 1, "SAME", "spatial"),
        ((32, 3, 3, 256), (3, 3, 256, 256), 1, "VALID", "spatial"),
        ((32, 14, 14, 256), (3, 3, 64, 256), 4, "SAME", "spatial"),
        ((32, 14, 14, 256), (1, 1, 64, 256), 4, "SAME", "spatial"),
        ((32, 28, 28, 1), (3, 3, 1, 16), 1, "SAME", "spatial"),
    ],
)
def test_rule(x, kernel, groups, padding, want):
    geometry = make_geometry(
        "conv", x, kernel, strides=1, padding=padding, kernel_dilation=1, feature_group_count=groups
    )
    assert choose(x, geometry) == want
    assert ops.METHODS[want].refusal(x[3], geometry) is None
