"""Experts in fewer bytes: what is stored, how far it is off, and what the layers make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from condconv_jax import nn
from condconv_jax.nn.compress import computation_dtype, quantize

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 5, 4, 4))
LAYERS = {
    "conv": nn.CondConv(6, (3, 3), 3),
    "depthwise": nn.CondConv(4, (3, 3), 3, feature_group_count=4, top_k=2),
    "1x1, k of 5": nn.CondConv(6, (1, 1), 5, top_k=1, use_bias=False),
    "dense": nn.CondDense(6, 3),
}


def drawn(module, x):
    """Parameters without a compiled `init`, and biases that are not zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, KEY, x)["params"]
    return jax.tree.map(lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), shapes)


def nbytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def dequantized(params):
    """The float32 parameters that int8 ones stand for."""
    if not isinstance(params, dict):
        return params
    result = {name: dequantized(child) for name, child in params.items() if name != "kernel_scale"}
    if "kernel_scale" in params:
        scale = params["kernel_scale"].reshape(-1, *(1,) * (params["kernel"].ndim - 1))
        result["kernel"] = params["kernel"].astype(jnp.float32) * scale
    return result


def test_int8_golden():
    # The largest of the first expert is 127, so a level is 1; of the second 2.54, a level 0.02.
    experts = jnp.array([[[127.0, -3.4], [0.6, 0]], [[0.5, -2.54], [0.029, -0.0091]]])
    levels, scale = quantize(experts)
    np.testing.assert_allclose(scale, [1, 0.02], rtol=1e-6)
    assert (levels.dtype, scale.dtype) == (jnp.int8, jnp.float32)
    # 0.5 / 0.02 = 25, 0.029 / 0.02 = 1.45, 0.0091 / 0.02 = 0.455.
    np.testing.assert_array_equal(levels, [[[127, -3], [1, 0]], [[25, -127], [1, 0]]])


@pytest.mark.parametrize("shape", [(5, 3, 3, 4, 6), (4, 30, 20)])
def test_int8_is_off_by_half_a_level_at_most(shape):
    per_expert = (shape[0], *(1,) * (len(shape) - 1))
    experts = np.random.default_rng(0).standard_normal(shape)
    experts *= np.logspace(-6, 3, shape[0]).reshape(per_expert)
    levels, scale = (np.float64(a) for a in quantize(jnp.asarray(experts, jnp.float32)))
    size = scale.reshape(per_expert)
    # Half a level, and the rounding of w / scale in float32, of up to 127.
    assert (np.abs(experts - size * levels) <= size * (0.5 + 127 * 2.0**-22)).all()
    # No coarser than it has to be: the largest of each expert is at the end of the scale.
    np.testing.assert_array_equal(np.abs(levels).reshape(shape[0], -1).max(axis=1), 127)


def test_experts_of_zeros_stay_zeros():
    experts = jnp.zeros((3, 2, 2)).at[1].set(5)
    levels, scale = quantize(experts)
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    np.testing.assert_array_equal(levels, jnp.zeros((3, 2, 2), jnp.int8).at[1].set(127))


def test_bfloat16_experts_are_quantized_too():
    # 127 levels of 2^-6, all of them bfloat16.
    experts = jnp.arange(-127, 128).reshape(1, -1).astype(jnp.bfloat16) / 64
    levels, scale = quantize(experts)
    np.testing.assert_array_equal(levels, [np.arange(-127, 128)])
    np.testing.assert_array_equal(scale, [2.0**-6])


PARAMS = {
    "layer": {
        "kernel": jnp.ones((4, 3, 3, 2, 8)),
        "bias": jnp.ones((4, 8)),
        "router": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)},
    },
    "static": {"kernel": jnp.ones((3, 3, 2, 8)), "bias": jnp.ones(8)},
    "norm": {"scale": jnp.ones(8), "bias": jnp.ones(8)},
    "head": {"kernel": jnp.ones((4, 8, 10)), "bias": jnp.ones((4, 10))},
    "plain": {"kernel": jnp.ones((8, 10))},
    "nested": {"kernel": {"kernel": jnp.ones((8, 8))}},
}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_only_experts_change(dtype):
    before = jax.tree.map(np.copy, PARAMS)
    got = nn.compress_experts(PARAMS, dtype)
    changed = {"layer": got["layer"].pop("kernel"), "head": got["head"].pop("kernel")}
    assert {a.dtype for a in changed.values()} == {jnp.dtype(dtype)}
    if dtype == "int8":
        for name in changed:
            assert got[name].pop("kernel_scale").shape == (4,)
    # The very same arrays.
    rest = {name: {**PARAMS[name]} for name in PARAMS}
    for name in changed:
        del rest[name]["kernel"]
    assert jax.tree.structure(got) == jax.tree.structure(rest)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(rest), strict=True)
    assert all(ours is theirs for ours, theirs in pairs)
    # What was passed has not changed, and shapes are those of the originals.
    jax.tree.map(np.testing.assert_array_equal, PARAMS, before)
    for name, kernel in changed.items():
        assert kernel.shape == PARAMS[name]["kernel"].shape


def test_bytes():
    # 4 * 9 * 2 * 8 + 4 * 8 * 10 = 896 values of experts; the scales are 2 * 4 float32.
    saved = {dtype: nbytes(PARAMS) - nbytes(nn.compress_experts(PARAMS, dtype))
             for dtype in ("bfloat16", "int8")}  # fmt: skip
    assert saved == {"bfloat16": 2 * 896, "int8": 3 * 896 - 2 * 4 * 4}


def test_under_eval_shape():
    shapes = jax.eval_shape(lambda: nn.compress_experts(PARAMS, "int8"))
    assert shapes["head"]["kernel"].dtype == jnp.int8
    assert shapes["head"]["kernel_scale"].shape == (4,)


@pytest.mark.parametrize(
    ("name", "batch"),
    [("conv", 1), ("conv", 3), ("depthwise", 1), ("1x1, k of 5", 1), ("dense", 3)],
)
def test_a_layer_computes_with_what_its_experts_stand_for(name, batch):
    module = LAYERS[name]
    x = X[:batch] if name != "dense" else X[:batch, 0, 0]
    params = drawn(module, x)
    apply = jax.jit(lambda params: module.apply({"params": params}, x, mutable=["routing"]))
    exact, state = apply(params)
    int8, bfloat16 = (nn.compress_experts(params, dtype) for dtype in ("int8", "bfloat16"))
    got = {
        "int8": (apply(int8), apply(dequantized(int8))),
        "bfloat16": (
            apply(bfloat16),
            apply(bfloat16 | {"kernel": bfloat16["kernel"].astype(jnp.float32)}),
        ),
    }
    for dtype, ((y, recorded), (want, _)) in got.items():
        assert y.dtype == jnp.float32
        # Sums of at most 36 products of inputs and mixed experts below 3.
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5, err_msg=dtype)
        np.testing.assert_array_equal(recorded["routing"]["weights"], state["routing"]["weights"])
        # Half a level of 127, or half of 2^-7, for each product: not nothing, and not much.
        error = np.abs(y - exact).max()
        assert 0 < error < 0.02 * np.abs(exact).max(), dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_dtype_of_the_computation_is_not_that_of_the_experts(dtype):
    module = nn.CondConv(6, (1, 1), 3, use_bias=False)
    params = nn.compress_experts(drawn(module, X), dtype)

    def apply(x, **options):
        run = lambda x: module.clone(**options).apply({"params": params}, x)
        return jax.eval_shape(run, x).dtype

    assert apply(X) == jnp.float32
    assert apply(X.astype(jnp.bfloat16)) == jnp.bfloat16
    assert apply(X, dtype=jnp.bfloat16) == jnp.bfloat16


def test_computation_dtype():
    low, exact, whole = (jnp.ones(1, dtype) for dtype in ("bfloat16", "float32", "int8"))
    assert computation_dtype(None, low, low, None) == jnp.bfloat16
    assert computation_dtype(None, low, exact) == jnp.float32
    assert computation_dtype(None, exact, low) == jnp.float32
    assert computation_dtype(None, low, whole, None) == jnp.bfloat16
    assert computation_dtype("bfloat16", exact, exact) == jnp.bfloat16


def test_gradients_by_the_rest_of_a_compressed_layer():
    # Fine-tuning what was left in float32, with the experts fixed.
    module = LAYERS["conv"]
    params = nn.compress_experts(drawn(module, X), "int8")
    fixed = {name: params[name] for name in ("kernel", "kernel_scale")}
    rest = {name: params[name] for name in ("bias", "router")}
    loss = lambda rest, fixed: (module.apply({"params": rest | fixed}, X) ** 2).mean()
    gradient = jax.jit(jax.grad(loss))
    got = gradient(rest, fixed)
    want = gradient(rest, {"kernel": dequantized(fixed)["kernel"]})
    check = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-6)
    jax.tree.map(check, got, want)


def test_in_nnx():
    # Compressed as Linen's tree, and put back.
    layer = nn.to_nnx(LAYERS["conv"], X, key=KEY)
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    compressed = nn.compress_experts(params, "int8")
    for name in ("kernel", "kernel_scale"):
        setattr(layer, name, nnx.Param(compressed[name]))
    want = LAYERS["conv"].apply({"params": dequantized(compressed)}, X)
    np.testing.assert_allclose(layer(X), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int4", "float32", "int 8"])
def test_unknown_dtypes_are_refused(dtype):
    message = f"compress_experts: unknown dtype '{dtype}'; choose one of 'bfloat16', 'int8'"
    with pytest.raises(ValueError, match=message):
        nn.compress_experts(PARAMS, dtype)
    with pytest.raises(ValueError, match="did you mean 'int8'"):
        nn.compress_experts(PARAMS, "int-8")


def test_a_network_without_experts_is_refused():
    static = {name: PARAMS[name] for name in ("static", "norm", "plain", "nested")}
    message = "compress_experts: no expert kernels in params; a static model has none"
    for params in (static, {}):
        with pytest.raises(ValueError, match=message):
            nn.compress_experts(params, "int8")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_quantised_experts_are_refused(dtype):
    params = {"head": {"kernel": np.ones((4, 8, 10), np.int8), "kernel_scale": np.ones(4)}}
    message = "compress_experts: there are experts in int8 already"
    with pytest.raises(ValueError, match=message):
        nn.compress_experts(params, dtype)


def test_a_scale_that_is_not_one_per_expert_is_refused(unchecked):
    module = LAYERS["conv"]
    params = nn.compress_experts(drawn(module, X), "int8")
    params["kernel_scale"] = jnp.ones(2)
    with pytest.raises(ValueError, match=r"cond_conv: scale is \(2,\), experts are 3; pass one"):
        module.apply({"params": params}, X)
