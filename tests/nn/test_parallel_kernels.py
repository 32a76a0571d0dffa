"""ParallelKernels: GoogLeNet's block and MixConv, with outputs where one convolution has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from condconv_jax import ops
from condconv_jax.analysis import count_madds
from condconv_jax.nn.parallel_kernels import ParallelKernels, split_evenly

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 7, 6, 4))


def drawn(module, x=X, seed=0):
    """Variables without a compiled `init`, biases that are not zero among them."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, KEY, x)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape), a.dtype), shapes)


def apply(module, variables, x=X):
    return jax.jit(module.apply)(variables, x)


def kernels(module, x):
    params = jax.eval_shape(module.init, KEY, x)["params"]
    return {name: layer["kernel"].shape for name, layer in params.items()}


def test_proportions_of_inception_3a():
    # Szegedy et al., table 1: 192 -> 64 | 96 -> 128 | 16 -> 32 | pool -> 32.
    assert kernels(ParallelKernels(256, 3), jnp.zeros((1, 28, 28, 192))) == {
        "branch_1x1": (1, 1, 192, 64),
        "reduce_3x3": (1, 1, 192, 96),
        "branch_3x3": (3, 3, 96, 128),
        "reduce_5x5": (1, 1, 192, 16),
        "branch_5x5": (5, 5, 16, 32),
        "branch_pool": (1, 1, 192, 32),
    }
    # 22: 5 (of 5.5), the rest, 2 and 2 (of 2.75); reductions 8 (of 8.25) and 1 (of 1.375).
    widths = lambda features: {
        name: shape[-1] for name, shape in kernels(ParallelKernels(features, 1), X).items()
    }
    names = ("branch_1x1", "branch_3x3", "branch_5x5", "branch_pool", "reduce_3x3", "reduce_5x5")
    assert widths(22) == dict(zip(names, (5, 13, 2, 2, 8, 1), strict=True))
    assert widths(4) == dict.fromkeys(names, 1)


def test_dense_branches_by_hand():
    module = ParallelKernels(16, 3)
    variables = drawn(module)

    def conv(x, name):
        layer = variables["params"][name]
        y = ops.conv(x, layer["kernel"], method="reference")
        return y + layer["bias"].reshape(1, 1, 1, -1)

    relu = lambda a: jnp.maximum(a, 0)
    pooled = lax.reduce_window(X, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    want = [
        conv(X, "branch_1x1"),
        conv(relu(conv(X, "reduce_3x3")), "branch_3x3"),
        conv(relu(conv(X, "reduce_5x5")), "branch_5x5"),
        conv(pooled, "branch_pool"),
    ]
    # Sums of at most 54 products, twice.
    np.testing.assert_allclose(
        apply(module, variables), jnp.concatenate(want, axis=-1), rtol=1e-4, atol=1e-5
    )


def test_depthwise_branches_by_hand():
    # 7 channels, 2 outputs of each: 3 by 3x3, 2 by 5x5, 2 by 7x7.
    x = jnp.concatenate([X, X[..., :3] ** 2], axis=-1)
    module = ParallelKernels(14, 7, strides=(1, 2), feature_group_count=7)
    variables = drawn(module, x)
    parts = {"branch_3x3": x[..., :3], "branch_5x5": x[..., 3:5], "branch_7x7": x[..., 5:]}
    assert set(variables["params"]) == set(parts)
    want = []
    for more, (name, part) in zip((-2, -1, 0), parts.items(), strict=True):
        layer = variables["params"][name]
        # "SAME" of 7x7 by (1, 2) on 7x6 pads (3, 3) and (2, 3).
        padding = ((3 + more, 3 + more), (2 + more, 3 + more))
        y = ops.conv(
            part, layer["kernel"], strides=(1, 2), padding=padding,
            feature_group_count=part.shape[-1], method="reference",
        )  # fmt: skip
        want.append(y + layer["bias"].reshape(1, 1, 1, -1))
    got = apply(module, variables, x)
    np.testing.assert_allclose(got, jnp.concatenate(want, axis=-1), rtol=1e-4, atol=1e-5)


def test_sizes_of_the_depthwise_kernels():
    sizes = lambda size: list(kernels(ParallelKernels(4, size, feature_group_count=4), X).values())
    five = [(3, 3, 1, 2), (5, 5, 1, 2)]
    assert sizes(1) == sizes(3) == sizes(5) == five
    assert sizes(7) == [(3, 3, 1, 2), (5, 5, 1, 1), (7, 7, 1, 1)]
    # Fewer channels than sizes: all of them in the first.
    assert kernels(ParallelKernels(2, 7, feature_group_count=2), X[..., :2]) == {
        "branch_3x3": (3, 3, 1, 2)
    }
    assert split_evenly(11, 4) == [5, 2, 2, 2]


PLACES = [(1, 2, "SAME"), (3, 2, "SAME"), (3, 2, 1), (5, (2, 1), "VALID"),
          (3, (1, 2), ((0, 2), (3, 0)))]  # fmt: skip


@pytest.mark.parametrize(("size", "strides", "padding"), PLACES)
def test_every_kernel_is_centred_where_the_one_it_stands_for_would_be(size, strides, padding):
    # Kernels that pass on what is at their centre give what the one convolution's would.
    def centre(shape):
        kernel = np.zeros(shape, np.float32)
        kernel[shape[0] // 2, shape[1] // 2, 0] = 1
        return jnp.asarray(kernel)

    placing = {"strides": strides, "padding": padding, "use_bias": False}
    x = jnp.abs(X)  # as it is behind the reductions' ReLU
    single = {"strides": strides, "padding": padding, "method": "reference"}
    want = ops.conv(x, centre((size, size, 4, 1)), **single)
    for module, count in (
        (ParallelKernels(8, size, **placing), 7),  # not the last, which pools
        (ParallelKernels(4, size, feature_group_count=4, **placing), 4),
    ):
        variables = jax.eval_shape(module.init, KEY, x)
        variables = jax.tree.map(lambda a: centre(a.shape), variables)
        y = apply(module, variables, x)
        assert y.shape[:3] == want.shape[:3]
        if count == 4:
            kernel = centre((size, size, 1, 4))
            want = ops.conv(x, kernel, feature_group_count=4, **single)
        np.testing.assert_array_equal(y[..., :count], jnp.broadcast_to(want, y.shape)[..., :count])


def test_pool_of_nothing_but_padding():
    # Pixels 1 2 with three of padding before and one after, under a 3x3 kernel by 2: windows end
    # before the first pixel and after the second.
    params = {name: {"kernel": jnp.zeros(shape)} for name, shape in
              kernels(ParallelKernels(4, 3, use_bias=False), X[..., :1]).items()}  # fmt: skip
    params["branch_pool"]["kernel"] += 1
    module = ParallelKernels(4, 3, strides=2, padding=((1, 1), (3, 1)), use_bias=False)
    y = apply(module, {"params": params}, -jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(y[0, 0, :, -1], [0, -1])


def test_depthwise_initialisers_go_by_all_channels():
    # fan_out_normal(g): variance 2 / (kh*kw), whatever part of the g groups a branch has.
    module = ParallelKernels(
        2048, 5, feature_group_count=2048, kernel_init=ops.fan_out_normal(2048)
    )
    params = jax.jit(module.init)(KEY, jnp.zeros((1, 5, 5, 2048)))["params"]
    for size in (3, 5):
        variance = np.var(params[f"branch_{size}x{size}"]["kernel"])
        assert variance == pytest.approx(2 / size**2, rel=0.1)  # of 9216 values


def test_gradients():
    with jax.enable_x64():
        module = ParallelKernels(8, 3, strides=2, method="portable")
        double = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64), tree)
        variables, x = double(drawn(module, seed=1)), double(X)
        check_grads(jax.jit(module.apply), (variables, x), 1, modes=["rev"], rtol=1e-5)


def test_madds_by_hand():
    # Inception 3a, 28x28: each position's products, branch by branch.
    per_position = 192 * 64 + 192 * 96 + 9 * 96 * 128 + 192 * 16 + 25 * 16 * 32 + 192 * 32
    for form in ("conv", "mixture"):
        got = count_madds(ParallelKernels(256, 3), 28, channels=192, form=form)
        assert got == 28 * 28 * per_position
    # Strided: reductions at 28x28, all else at 14x14.
    reductions = 192 * (96 + 16)
    strided = count_madds(ParallelKernels(256, 5, strides=2), 28, channels=192)
    assert strided == 28 * 28 * reductions + 14 * 14 * (per_position - reductions)
    depthwise = count_madds(ParallelKernels(32, 3, feature_group_count=32), 14, channels=32)
    assert depthwise == 14 * 14 * (16 * 9 + 16 * 25)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ParallelKernels(8, 2), "ParallelKernels: kernel_size is 2x2; pass an odd number, the"),
        (ParallelKernels(8, (3, 5)), "ParallelKernels: kernel_size is 3x5; pass an odd number"),
        (ParallelKernels(8, 7), "ParallelKernels: kernel_size is 7x7, and the largest kernel of an "
         "Inception block 5x5; pass 1, 3 or 5"),
        (ParallelKernels(3, 3), "ParallelKernels: features is 3; pass at least 4, one per branch"),
        (ParallelKernels(8, 3, feature_group_count=2), "ParallelKernels: feature_group_count is 2 "
         "for 4 input channels; pass 1 for an Inception block or 4 for a depthwise MixConv"),
        (ParallelKernels(8, 3, padding="CIRCULAR"), "ParallelKernels: padding is 'CIRCULAR'"),
        (ParallelKernels(8, 3, method="nativ"), "unknown method 'nativ'.*did you mean 'native'?"),
    ],
)  # fmt: skip
def test_refusals(module, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, KEY, X)
