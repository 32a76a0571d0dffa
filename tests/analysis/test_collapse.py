import numpy as np
import pytest

from condconv_jax.analysis import effective_experts, experts_per_image, idle_experts


@pytest.mark.parametrize("weight", [1 / 8, 0.5, 1.0, 3.0])
def test_experts_that_are_used_alike_all_count(weight):
    routing = np.full((5, 8), weight, np.float32)
    assert effective_experts(routing) == pytest.approx(8)
    assert experts_per_image(routing) == pytest.approx(8)
    assert idle_experts(routing).tolist() == []


def test_one_expert_for_each_image_is_not_a_collapse():
    routing = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    assert effective_experts(routing) == pytest.approx(4)
    assert experts_per_image(routing) == pytest.approx(1)


def test_one_expert_for_all_images_is():
    routing = np.zeros((6, 4))
    routing[:, 2] = 0.7
    assert effective_experts(routing) == pytest.approx(1)
    assert experts_per_image(routing) == pytest.approx(1)
    assert idle_experts(routing).tolist() == [0, 1, 3]


def test_by_hand():
    # Sums 2 and 1: shares 2/3 and 1/3, entropy log 3 - (2/3) log 2, so N = 3 / 2^(2/3).
    routing = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert effective_experts(routing) == pytest.approx(3 / 2 ** (2 / 3))
    assert experts_per_image(routing) == pytest.approx((1 + 2) / 2)


def test_scale_and_sign_do_not_matter():
    routing = np.random.default_rng(0).normal(size=(20, 6))
    for other in (10 * routing, -routing, np.abs(routing)):
        assert effective_experts(other) == pytest.approx(effective_experts(routing))
        assert experts_per_image(other) == pytest.approx(experts_per_image(routing))
        np.testing.assert_array_equal(idle_experts(other, 0.5), idle_experts(routing, 0.5))


def test_an_expert_is_idle_beside_the_largest_weight_of_the_layer():
    routing = np.array([[0.9, 0.04, 0.0], [0.1, 0.01, 0.2]])
    assert idle_experts(routing).tolist() == [1]
    assert idle_experts(routing, 0.01).tolist() == []


def test_weights_that_are_all_zero():
    routing = np.zeros((3, 2))
    assert effective_experts(routing) == experts_per_image(routing) == 0
    assert idle_experts(routing).tolist() == [0, 1]


def test_shapes_that_do_not_fit_are_refused():
    for function in (effective_experts, experts_per_image, idle_experts):
        with pytest.raises(ValueError, match=r"are \(3,\); pass \(n, e\)"):
            function(np.zeros(3))
