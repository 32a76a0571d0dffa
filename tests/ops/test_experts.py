import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import ops


def test_mix_experts_golden():
    # 0.5 (1 2; 3 4) + 2 (0 1; -1 0) = (0.5 3; -0.5 2), and 1 (1 2; 3 4).
    experts = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [-1.0, 0.0]]])
    mixed = ops.mix_experts(experts, jnp.array([[0.5, 2.0], [1.0, 0.0]]))
    np.testing.assert_allclose(mixed, [[[0.5, 3], [-0.5, 2]], [[1, 2], [3, 4]]], rtol=1e-6)


def test_mix_experts_of_scalars_and_of_vectors():
    routing = jnp.array([[1.0, 10.0], [2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(ops.mix_experts(jnp.array([3.0, 4.0]), routing), [43, 6, 0])
    biases = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    want = [[41, 52, 63], [2, 4, 6], [0, 0, 0]]
    np.testing.assert_allclose(ops.mix_experts(biases, routing), want)


def test_mix_experts_accumulates_in_float32_and_keeps_the_experts_dtype():
    # 256 and then 16 ones: in bfloat16 256 + 1 = 256, and the sum would stay there.
    experts = jnp.ones((17, 1), jnp.bfloat16).at[0].set(256)
    mixed = ops.mix_experts(experts, jnp.ones((1, 17)))
    assert mixed.dtype == jnp.bfloat16
    assert float(mixed[0, 0]) == 272


@pytest.mark.parametrize(
    ("experts", "routing"), [((3, 2), (4, 2)), ((3, 2), (3,)), ((), (2, 1)), ((3, 2), (1, 2, 3))]
)
def test_mix_experts_refuses(unchecked, experts, routing):
    with pytest.raises(ValueError, match=r"mix_experts: experts are .*; pass \(e, ...\) and"):
        ops.mix_experts(jnp.ones(experts), jnp.ones(routing))


@pytest.mark.parametrize("name", ["lecun_normal", "glorot_uniform", "fan_out_normal"])
def test_each_expert_is_drawn_as_a_kernel_of_its_own(name):
    shape, key = (3, 3, 4, 5), jax.random.key(7)
    one = ops.INITIALIZERS[name]()
    drawn = ops.per_expert(one)(key, (3, *shape), jnp.float32)
    keys = jax.random.split(key, 3)
    for expert, expert_key in zip(drawn, keys, strict=True):
        np.testing.assert_array_equal(expert, one(expert_key, shape, jnp.float32))
    assert len(np.unique(np.asarray(drawn).reshape(3, -1)[:, 0])) == 3


def test_per_expert_passes_the_dtype_on():
    init = ops.per_expert(jax.nn.initializers.zeros)
    assert init(jax.random.key(0), (2, 3), jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("shape", "groups", "variance"),
    [
        # 2 / (kh kw f / g): each input feeds kh kw outputs of f/g channels.
        ((3, 3, 16, 64), 1, 2 / (9 * 64)),
        ((3, 3, 1, 512), 512, 2 / 9),
        ((3, 3, 8, 64), 4, 2 / (9 * 16)),
        ((1, 1, 32, 128), 1, 2 / 128),
    ],
)
def test_fan_out_variance_is_that_of_the_true_fan_out(shape, groups, variance):
    for make in (ops.fan_out_normal, ops.fan_out_truncated_normal):
        drawn = ops.per_expert(make(groups))(jax.random.key(1), (4, *shape), jnp.float32)
        # Over 16,000 values: the deviation of a variance estimate is sqrt(2 / n), under 1.2 %.
        assert np.var(drawn) == pytest.approx(variance, rel=0.05)
        assert abs(np.mean(drawn)) < 0.05 * variance**0.5


def test_truncated_is_truncated_and_normal_is_not():
    shape = (16, 3, 3, 8, 32)
    sigma = (2 / (9 * 32)) ** 0.5
    normal, truncated = (
        np.abs(ops.per_expert(make())(jax.random.key(2), shape, jnp.float32)).max()
        for make in (ops.fan_out_normal, ops.fan_out_truncated_normal)
    )
    # Truncation at two deviations shrinks the variance, which the scale 1 / 0.87962566 restores.
    assert truncated <= 2 * sigma / 0.87962566 * 1.0001
    assert normal > 3 * sigma
