import jax
import numpy as np
import pytest
from conv_cases import Case, cases, xla_conv
from hypothesis import given, settings

from condconv_jax.ops.geometry import make_geometry


def _geometry(x=(2, 5, 6, 4), kernel=(3, 3, 4, 8), **keywords):
    defaults = {"strides": 1, "padding": "SAME", "kernel_dilation": 1, "feature_group_count": 1}
    return make_geometry("conv", x, kernel, **defaults | keywords)


@settings(max_examples=60)
@given(cases())
def test_out_size_is_xlas(case):
    x, kernel = (jax.ShapeDtypeStruct(s, "float32") for s in (case.x_shape, case.kernel_shape))
    want = jax.eval_shape(lambda x, w: xla_conv(x, w, case), x, kernel)
    geometry = make_geometry("conv", case.x_shape, case.kernel_shape, **case.keywords)
    assert geometry.out_size == want.shape[1:3]


def test_same_pads_the_odd_pixel_after_and_same_lower_before():
    # Width 6, kernel 3, stride 2: 3 outputs span 2*2 + 3 = 7, one pixel more than there is.
    assert _geometry(strides=2).padding == ((1, 1), (0, 1))
    assert _geometry(strides=2, padding="SAME_LOWER").padding == ((1, 1), (1, 0))


@pytest.mark.parametrize(
    ("padding", "want"),
    [
        ("VALID", ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([(1, 0), 3], ((1, 0), (3, 3))),
        (((1, 0), (0, 2)), ((1, 0), (0, 2))),
    ],
)
def test_padding_is_resolved_to_pixels(padding, want):
    assert _geometry(padding=padding).padding == want


def test_kinds():
    assert _geometry(kernel=(1, 1, 4, 8)).is_pointwise()
    assert not _geometry(kernel=(1, 1, 1, 8), feature_group_count=4).is_pointwise()
    assert _geometry(kernel=(1, 1, 1, 8), feature_group_count=4).is_depthwise(4)
    assert not _geometry().is_depthwise(4)
    # One channel in one group is both a dense and a depthwise convolution; called dense.
    assert not _geometry((1, 5, 5, 1), (3, 3, 1, 8)).is_depthwise(1)
    assert not _geometry(padding="VALID").pads()
    assert _geometry(padding=((0, 0), (0, 1))).pads()


def test_numbers_of_numpy_are_numbers(unchecked):
    two = np.int64(2)
    found = _geometry(strides=two, padding=(two, (np.int32(1), two)), kernel_dilation=(1, two))
    assert found == _geometry(strides=2, padding=(2, (1, 2)), kernel_dilation=(1, 2))
    assert {type(n) for n in (*found.strides, *found.padding[1])} == {int}


def test_a_geometry_is_hashable(unchecked):
    # It is a static argument of a custom gradient.
    assert hash(_geometry(strides=[1, 2], padding=[[1, 1], [0, 0]])) == hash(
        _geometry(strides=(1, 2), padding=((1, 1), (0, 0)))
    )


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"x": (5, 6, 4)}, r"conv: inputs are \(5, 6, 4\) and one kernel \(3, 3, 4, 8\); pass \(b"),
        ({"kernel": (3, 4, 8)}, r"one kernel \(3, 4, 8\)"),
        (
            {"kernel": (3, 3, 3, 8)},
            "inputs have 4 channels, the kernel takes 3 in each of 1 groups; pass kernels with 4/1",
        ),
        ({"feature_group_count": 0}, "the kernel takes 4 in each of 0 groups"),
        (
            {"kernel": (3, 3, 2, 7), "feature_group_count": 2},
            "conv: 7 output channels in 2 groups; pass a multiple of 2",
        ),
        ({"strides": 0}, "conv: strides is 0; pass a positive integer or two"),
        ({"strides": (1, 2, 3)}, r"strides is \(1, 2, 3\)"),
        ({"strides": 2.0}, "strides is 2.0; pass a positive integer or two"),
        ({"strides": (1, 2.0)}, r"strides is \(1, 2.0\)"),
        ({"strides": np.array([2, 2])}, r"strides is array\(\[2, 2\]\)"),
        ({"kernel_dilation": -1}, "kernel_dilation is -1; pass a positive"),
        ({"padding": "CIRCULAR"}, "padding is 'CIRCULAR'; pass 'SAME', .*jnp.pad for any other"),
        (
            {"padding": -1},
            r"padding is -1; pass \(\(top, bottom\), \(left, right\)\), not",
        ),
        ({"padding": [(1, 1)]}, r"padding is \[\(1, 1\)\]; pass"),
        ({"padding": ((1, 1, 1), (0, 0))}, r"padding is \(\(1, 1, 1\)"),
        ({"padding": ((0, -1), (0, 0))}, r"padding is \(\(0, -1\)"),
        ({"padding": None}, "padding is None; pass"),
        ({"padding": 0.5}, "padding is 0.5; pass"),
        ({"padding": ("SAME", "VALID")}, r"padding is \('SAME', 'VALID'\); pass"),
        (
            {"kernel": (3, 7, 4, 8), "padding": "VALID"},
            r"conv: a kernel that spans \(3, 7\) does not fit into inputs of \(5, 6\) padded by "
            r"\(\(0, 0\), \(0, 0\)\); pad more",
        ),
        ({"padding": "VALID", "kernel_dilation": 3}, r"a kernel that spans \(7, 7\) does not fit"),
    ],
)
def test_refusals(unchecked, keywords, message):
    with pytest.raises(ValueError, match=message):
        _geometry(**keywords)


def test_the_draws_cover_every_kind_of_case():
    seen = set()

    @settings(max_examples=60)
    @given(cases())
    def collect(case: Case):
        seen.update(case.methods())
        seen.add(case.padding)

    collect()
    assert {"pointwise", "depthwise", "SAME", "SAME_LOWER", "VALID", 1} <= seen


def test_empty_kernels_are_refused():
    with pytest.raises(ValueError, match=r"one kernel is \(0, 3, 4, 8\); pass .* at least 1 each"):
        _geometry(kernel=(0, 3, 4, 8))
