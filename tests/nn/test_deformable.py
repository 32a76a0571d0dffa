"""DeformableConv: without offsets a convolution, with them what numpy finds at each moved tap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from condconv_jax import ops
from condconv_jax.analysis import layer_costs
from condconv_jax.nn.deformable import DeformableConv
from condconv_jax.ops.geometry import make_geometry

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 6, 5, 4))
CASES = {
    "dense": (6, (3, 2), {"strides": (2, 1)}),  # "SAME" of 6 rows by 2: a pixel below only
    "1x1": (6, 1, {"strides": 2, "padding": ((1, 0), (0, 2))}),
    "depthwise": (8, 3, {"feature_group_count": 4, "strides": 2}),
    "grouped": (6, (2, 3), {"feature_group_count": 2, "padding": "VALID"}),
    "wide": (3, 5, {"padding": 2}),
}


def layer(name, **options):
    features, kernel_size, keywords = CASES[name]
    return DeformableConv(features, kernel_size, **keywords | options)


def drawn(module, x=X, seed=0):
    """Variables without a compiled `init`, offsets of a pixel or two among them."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, KEY, x)
    return jax.tree.map(lambda a: jnp.asarray(0.4 * rng.standard_normal(a.shape), a.dtype), shapes)


def apply(module, variables, x=X):
    return jax.jit(module.apply)(variables, x)


def bilinear(image, row, column):
    """The value between pixels of image (h, w, c), which is zero outside."""
    total = np.zeros(image.shape[2])
    for i in (int(np.floor(row)), int(np.floor(row)) + 1):
        for j in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += image[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def by_hand(name, params, x, modulated):
    """Tap after tap of each output."""
    features, _, keywords = CASES[name]
    keywords = {"strides": 1, "padding": "SAME"} | keywords
    groups = keywords.setdefault("feature_group_count", 1)
    kernel = np.asarray(params["kernel"], np.float64)
    geometry = make_geometry("test", x.shape, kernel.shape, kernel_dilation=1, **keywords)
    placing = {k: v for k, v in keywords.items() if k != "feature_group_count"}
    offsets = ops.conv(x, params["offset"]["kernel"], method="reference", **placing)
    (h, w), (kh, kw) = geometry.out_size, geometry.kernel_size
    offsets = np.float64(offsets + params["offset"]["bias"].reshape(1, 1, 1, -1))
    offsets = offsets.reshape(*offsets.shape[:3], kh, kw, 3 if modulated else 2)
    y = np.zeros((x.shape[0], h, w, features))
    for b, i, j, p, q in np.ndindex(x.shape[0], h, w, kh, kw):
        down, right, *logit = offsets[b, i, j, p, q]
        value = bilinear(
            np.float64(x[b]),
            i * geometry.strides[0] - geometry.padding[0][0] + p + down,
            j * geometry.strides[1] - geometry.padding[1][0] + q + right,
        )
        if modulated:
            value = value / (1 + np.exp(-logit[0]))
        for f in range(features):
            group = f // (features // groups)
            own = value.reshape(groups, -1)[group]
            y[b, i, j, f] += own @ kernel[p, q, :, f]
    return y + np.asarray(params["bias"])


@pytest.mark.parametrize(
    ("name", "modulated"), [*((name, False) for name in CASES), ("dense", True)]
)
def test_starts_as_a_convolution(name, modulated):
    module = layer(name, modulated=modulated)
    params = drawn(module)["params"]
    params["offset"] = jax.tree.map(jnp.zeros_like, params["offset"])
    y = apply(module, {"params": params}) - params["bias"].reshape(1, 1, 1, -1)
    by_xla = jax.jit(functools.partial(ops.conv, method="reference", **CASES[name][2]))
    # Version 2 as half of one: each sample weighs sigmoid(0).
    want = by_xla(X, params["kernel"]) * (0.5 if modulated else 1)
    # The same sums of at most 100 products, in another order.
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_offsets_are_initialised_to_zero():
    params = jax.jit(DeformableConv(6, 3, modulated=True).init)(KEY, X)["params"]
    assert jax.tree.map(jnp.shape, params) == {
        "kernel": (3, 3, 4, 6),
        "bias": (6,),
        "offset": {"kernel": (3, 3, 4, 27), "bias": (27,)},
    }
    assert not any(a.any() for a in jax.tree.leaves(params["offset"]))


@pytest.mark.parametrize(
    ("name", "modulated"),
    [("dense", True), ("1x1", False), ("depthwise", True), ("grouped", False)],
)
def test_samples_each_tap_where_it_is_moved_to(name, modulated):
    module = layer(name, modulated=modulated)
    variables = drawn(module)
    want = by_hand(name, variables["params"], X, modulated)
    # Positions are of float32, exact to 5e-7 of a pixel, and differences of pixels up to 5.
    np.testing.assert_allclose(apply(module, variables), want, rtol=1e-4, atol=2e-5)


def test_golden():
    # A 1x1 kernel of 2 that looks half a pixel to the right and a whole one down: of rows (1 2 4)
    # and (8 10 20) the first finds 9, 15 and, half of it outside, 10; the second nothing.
    params = {
        "kernel": jnp.full((1, 1, 1, 1), 2.0),
        "offset": {"kernel": jnp.zeros((1, 1, 1, 2)), "bias": jnp.array([1.0, 0.5])},
    }
    x = jnp.array([[1.0, 2.0, 4.0], [8.0, 10.0, 20.0]]).reshape(1, 2, 3, 1)
    y = apply(DeformableConv(1, 1, use_bias=False), {"params": params}, x)
    np.testing.assert_allclose(y[0, :, :, 0], [[18, 30, 20], [0, 0, 0]], rtol=1e-6)


def test_gradients():
    with jax.enable_x64():
        module = layer("dense", modulated=True, method="portable")
        double = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64), tree)
        variables, x = double(drawn(module)), double(X)
        # No tap within 0.01 pixels of a kink of the interpolation: offsets of 0.25 to 0.75.
        offset = variables["params"]["offset"]
        offset["kernel"] = 0.02 * offset["kernel"]
        offset["bias"] = jnp.full_like(offset["bias"], 0.5)
        check_grads(jax.jit(module.apply), (variables, x), 1, modes=["rev"], rtol=1e-5)


def test_on_a_mesh_nothing_is_gathered():
    module = layer("dense")
    x = jnp.tile(X, (4, 1, 1, 1))
    variables = drawn(module)
    want = apply(module, variables, x)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        compiled = jax.jit(module.apply).lower(variables, placed).compile()
        assert "all-gather" not in compiled.as_text()
        np.testing.assert_allclose(compiled(variables, placed), want, rtol=1e-5, atol=1e-5)


def test_madds_by_hand():
    # 2x3 outputs of 4x6x3 inputs: 5 of 27 products, and 18 or 27 offsets of 27 products.
    costs = lambda module, **form: {
        cost.name: cost.conv for cost in layer_costs(module, (4, 6), **form)
    }
    for form in ("conv", "mixture"):
        got = costs(DeformableConv(5, 3, strides=2), form=form)
        assert got == {"offset": 6 * 18 * 27, "": 6 * 5 * 27}
    modulated = costs(DeformableConv(5, 3, modulated=True, strides=2))
    assert modulated == {"offset": 6 * 27 * 27, "": 6 * 5 * 27}
    # Offsets come from all channels: dense where the convolution is depthwise.
    depthwise = costs(DeformableConv(3, 3, strides=2, feature_group_count=3))
    assert depthwise == {"offset": 6 * 18 * 27, "": 6 * 3 * 9}


def test_low_precision():
    variables = drawn(layer("dense"))
    variables["params"]["offset"]["kernel"] *= 0.1
    y = apply(layer("dense", dtype=jnp.bfloat16), variables)
    want = apply(layer("dense"), variables)
    assert y.dtype == jnp.bfloat16
    # Products of 8 bits, and offsets of 8 bits: of up to two pixels, 1/128 of one.
    np.testing.assert_allclose(np.float32(y), want, atol=0.05 * np.abs(want).max())


def test_no_examples():
    module = layer("dense")
    assert jax.eval_shape(module.apply, drawn(module), X[:0]).shape == (0, 3, 5, 6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (DeformableConv(6, 3, method="refrence"), "DeformableConv: unknown method 'refrence'.*"
         "did you mean 'reference'?"),
        (DeformableConv(6, 3, padding="REFLECT"), "DeformableConv: padding is 'REFLECT'; pass"),
        (DeformableConv(6, 9, padding="VALID"), r"DeformableConv: a kernel that spans \(9, 9\)"),
        (DeformableConv(6, 3, feature_group_count=3), "DeformableConv: feature_group_count is 3"),
        (DeformableConv(6, (3, 0)), r"DeformableConv: kernel_size is \(3, 0\)"),
    ],
)  # fmt: skip
def test_refusals(module, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, KEY, X)
