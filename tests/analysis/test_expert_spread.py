import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import models
from condconv_jax.analysis import expert_rank, expert_spread, learned_spread
from condconv_jax.nn import compress_experts


def test_by_hand():
    # Experts 1 and 3: mean 2, each 1 away from it.
    kernel = np.stack([np.full((1, 1, 2, 2), 1.0), np.full((1, 1, 2, 2), 3.0)])
    static = np.ones((3, 3, 2, 2))
    params = {
        "layer_2": {"pointwise": {"kernel": kernel, "bias": np.ones((2, 2))}},
        "layer_1": {"kernel": static},
        "classifier": {"kernel": np.ones((4, 5, 6))},
        "router_2": {"kernel": np.ones((2, 2))},
        "opposite": {"kernel": np.stack([static, -static])},
    }
    assert expert_spread(params) == {
        "classifier": 0.0,
        "layer_2/pointwise": 0.5,
        "opposite": np.inf,
    }


def test_new_experts_have_nothing_in_common():
    rng = np.random.default_rng(0)
    found = expert_spread({"conv": {"kernel": rng.standard_normal((8, 3, 3, 64, 64))}})
    # The mean of 8 has an eighth of their variance, what is left seven: sqrt(7 / 8 / (1 / 8)).
    assert found["conv"] == pytest.approx(np.sqrt(7), rel=0.02)


def test_a_static_network_has_none():

    model = models.create("mobilenet_v1", 3, width=1 / 16)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert expert_spread(variables["params"]) == {}


def test_what_was_learned_by_hand():
    ones, column = np.ones((1, 1, 2, 2)), np.array([1.0, -1.0]).reshape(1, 1, 1, 2)
    start = {"conv": {"kernel": np.stack([3 * ones, ones])}}
    # The mean goes from 2 to 4, the differences of 1 shrink to a half, and 1 of another kind comes.
    after = {"conv": {"kernel": np.stack([4.5 * ones + column, 3.5 * ones - column])}}
    assert learned_spread(start, after) == {"conv": pytest.approx(0.25)}
    assert expert_spread(after) == {"conv": pytest.approx(np.sqrt(1.25) / 4)}
    assert learned_spread(start, start) == {"conv": 0.0}


def test_equal_experts_and_other_modules():
    equal = {"conv": {"kernel": np.ones((2, 1, 1, 2, 2))}}
    apart = {"conv": {"kernel": np.stack([np.full((1, 1, 2, 2), v) for v in (1.0, 3.0)])}}
    assert learned_spread(equal, apart) == {"conv": 0.5}
    assert learned_spread({}, apart) == {}
    assert learned_spread({"conv": {"kernel": np.ones((3, 1, 1, 2, 2))}}, apart) == {}


def test_rank_of_experts():
    rng = np.random.default_rng(0)
    one, other = np.eye(2, 9).reshape(2, 3, 3, 1, 1)
    kernels = {
        "equal": np.stack([one] * 4),
        "multiples": np.stack([one, -2 * one, 0 * one, 3 * one]),
        "pairs": np.stack([one, one, other, other]),  # two singular values of sqrt(2)
        "uneven": np.stack([2 * one, other]),  # (4 + 1) / 4
        "none": np.zeros((4, 3, 3, 1, 1)),
        "new": rng.standard_normal((8, 3, 3, 64, 64)),
    }
    found = expert_rank({name: {"kernel": kernel} for name, kernel in kernels.items()})
    new = found.pop("new")
    assert found == pytest.approx(
        {"equal": 1, "multiples": 1, "pairs": 2, "uneven": 1.25, "none": 0}
    )
    # Of 8 x 36,864 random values the largest singular value is sqrt(36,864) + sqrt(8) at the most,
    # as the matrix grows: 8 / (1 + sqrt(8 / 36,864))^2.
    assert 7.76 < new < 8


def test_int8_experts_are_what_they_stand_for():
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, 3.0, 10.0]).reshape(3, 1, 1)
    params = {"classifier": {"kernel": jnp.asarray(sizes * rng.standard_normal((3, 40, 5)))}}
    small = compress_experts(params, "int8")
    for measure in (expert_spread, expert_rank):
        # Half of 1/127 of the largest weight of each expert.
        assert measure(small) == pytest.approx(measure(params), rel=0.01)
