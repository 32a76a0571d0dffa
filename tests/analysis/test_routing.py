import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condconv_jax.analysis import (
    chance_specificity,
    class_specificity,
    class_spread,
    effective_experts,
    expert_use,
    experts_per_image,
    layer_statistics,
    mean_by_class,
    share_near,
    top_classes,
    weight_histogram,
)
from condconv_jax.analysis.routing import grouped_by_expert, most_specific_classes

# Two images of class 0, one of class 1, three of class 2; two experts.
LABELS = np.array([0, 0, 1, 2, 2, 2])
ROUTING = np.array(
    [[0.0, 0.5], [1.0, 0.5], [0.25, 0.75], [0.05, 0.95], [0.10, 0.85], [0.15, 0.90]], np.float32
)


def random_case(seed, n=40, experts=5, classes=4):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return rng.random((n, experts)).astype(np.float32), labels


def test_means_by_class_are_those_computed_by_hand():
    expected = [[0.5, 0.5], [0.25, 0.75], [0.10, 0.90], [np.nan, np.nan]]
    np.testing.assert_allclose(mean_by_class(ROUTING, LABELS, 4), expected, atol=1e-7)


def test_expert_use_is_the_mean_over_images():
    np.testing.assert_allclose(expert_use(ROUTING), [1.55 / 6, 4.45 / 6], atol=1e-7)


def test_class_means_weighted_by_their_images_give_the_expert_use():
    routing, labels = random_case(1)
    counts = np.bincount(labels)
    weighted = counts @ mean_by_class(routing, labels, len(counts)) / counts.sum()
    np.testing.assert_allclose(weighted, expert_use(routing), rtol=1e-12)


def test_specificity_by_hand():
    # One expert, two classes of two: weights 0 and 0.2, 0.8 and 1. Class means 0.1 and 0.9, mean
    # 0.5. Between: 4 * 0.4^2 = 0.64; in all: 2 * 0.5^2 + 2 * 0.3^2 = 0.68.
    routing = np.array([[0.0], [0.2], [0.8], [1.0]])
    labels = np.array([0, 0, 1, 1])
    assert class_specificity(routing, labels) == pytest.approx(0.64 / 0.68)
    assert class_spread(routing, labels) == pytest.approx(0.4)


def test_specificity_divides_after_summing_over_experts():
    # The expert of the case above and one that varies within classes only, by as much as it has
    # sum of squares 0.25: 0.64 / (0.68 + 0.25).
    routing = np.array([[0.0, 0.25], [0.2, 0.75], [0.8, 0.25], [1.0, 0.75]])
    labels = np.array([0, 0, 1, 1])
    assert class_specificity(routing, labels) == pytest.approx(0.64 / (0.68 + 0.25))
    assert class_spread(routing, labels) == pytest.approx(0.4 / np.sqrt(2))


def test_one_expert_per_class_is_entirely_specific():
    labels = np.array([0, 1, 2, 2, 1, 0, 0])
    assert class_specificity(np.eye(3)[labels], labels) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.3, 1 / 3, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_routing_is_not_specific(value, dtype):
    labels = np.arange(90) % 7
    routing = np.full((90, 3), value, dtype)
    assert class_specificity(routing, labels) == 0.0
    assert class_spread(routing, labels) == 0.0


def test_shuffled_labels_have_the_specificity_of_chance():
    routing, labels = random_case(3)
    rng = np.random.default_rng(0)
    found = [class_specificity(routing, rng.permutation(labels)) for _ in range(2000)]
    assert chance_specificity(labels) == pytest.approx(3 / 39)
    assert np.mean(found) == pytest.approx(3 / 39, abs=5 * np.std(found) / np.sqrt(len(found)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(5)), st.permutations(range(4)))
def test_names_of_experts_and_classes_do_not_matter(seed, experts, classes):
    routing, labels = random_case(seed)
    experts, classes = np.array(experts), np.array(classes)
    permuted, renamed = routing[:, experts], classes[labels]
    np.testing.assert_allclose(
        mean_by_class(permuted, labels, 4), mean_by_class(routing, labels, 4)[:, experts]
    )
    np.testing.assert_allclose(
        mean_by_class(routing, renamed, 4)[classes], mean_by_class(routing, labels, 4)
    )
    for measure in (class_specificity, class_spread):
        expected = measure(routing, labels)
        assert measure(permuted, labels) == pytest.approx(expected, rel=1e-12)
        assert measure(routing, renamed) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_specificity_is_a_share_that_scale_and_shift_leave(seed, scale, shift):
    routing, labels = random_case(seed)
    routing = routing.astype(np.float64)
    specificity = class_specificity(routing, labels)
    assert 0 <= specificity <= 1
    moved = scale * routing + shift
    assert class_specificity(moved, labels) == pytest.approx(specificity, rel=1e-6)
    assert class_spread(moved, labels) == pytest.approx(
        scale * class_spread(routing, labels), rel=1e-6
    )


def test_shares_near_0_and_1():
    # 0, 0.05 near 0 (0.10 in float32 is just above 0.1); 1, 0.95 near 1.
    assert share_near(ROUTING, 0.0) == pytest.approx(2 / 12)
    assert share_near(ROUTING, 1.0) == pytest.approx(2 / 12)
    assert share_near(-ROUTING, 0.0) == pytest.approx(2 / 12)


def test_histogram_counts_every_weight_once():
    edges = np.array([0.0, 0.25, 0.5, 1.0])
    # [0, .25): 0, .05, .1, .15; [.25, .5): .25; the other seven up to 1, both edges included.
    np.testing.assert_allclose(weight_histogram(ROUTING, edges), np.array([4, 1, 7]) / 12)
    outside = np.array([[-3.0, 0.3, 7.0]])
    np.testing.assert_allclose(weight_histogram(outside, edges), np.array([1, 1, 1]) / 3)


def test_top_classes_are_the_heaviest_of_those_with_images():
    by_class = np.array([[0.1, 0.9], [np.nan, np.nan], [0.8, 0.2], [0.5, 0.2]])
    assert top_classes(by_class, 2) == [[2, 3], [0, 2]]
    assert top_classes(by_class, 9) == [[2, 3, 0], [0, 2, 3]]


def test_few_classes_keep_their_order_and_many_are_chosen_by_distance():
    by_class = np.array([[0.5, 0.5], [0.1, 0.9], [0.5, 0.5], [1.0, 0.0], [0.4, 0.6]])
    assert most_specific_classes(by_class, 5) == [0, 1, 2, 3, 4]
    # 3 and 1 are farthest; expert 0 sets 3 apart, expert 1 sets 1 apart.
    assert most_specific_classes(by_class, 2) == [3, 1]
    by_class[3] = np.nan
    assert most_specific_classes(by_class, 4) == [0, 1, 2, 4]


def test_of_classes_that_share_an_expert_the_one_that_weighs_it_most_comes_first():
    by_class = np.array([[0.4, 0.6], [0.8, 0.2], [0.1, 0.9], [0.9, 0.1]])
    assert grouped_by_expert(by_class, [0, 1, 2, 3]) == [3, 1, 2, 0]
    assert grouped_by_expert(by_class, [1, 0]) == [1, 0]


def test_statistics_of_a_layer():
    found = layer_statistics(ROUTING, LABELS)
    assert found.experts == 2
    assert found.mean == pytest.approx(6.0 / 12)
    assert found.near_zero == found.near_one == pytest.approx(2 / 12)
    assert found.specificity == class_specificity(ROUTING, LABELS)
    assert found.spread == class_spread(ROUTING, LABELS)
    assert found.chance == pytest.approx(2 / 5)
    assert found.use == pytest.approx((1.55 / 6, 4.45 / 6))


def test_statistics_of_a_layer_take_no_measure_for_another():
    # Of weights that are not as often near 1 as near 0, nor spread alike in one image and in all.
    routing = np.array([[0.0, 1.0, 0.0], [0.05, 0.95, 0.0], [0.5, 0.04, 0.0]])
    found = layer_statistics(routing, np.array([0, 1, 0]))
    assert found.near_zero == pytest.approx(6 / 9)
    assert found.near_one == pytest.approx(2 / 9)
    assert found.effective == effective_experts(routing) > 1.5
    assert found.per_image == experts_per_image(routing) < 1.3
    assert found.idle == (2,)


@pytest.mark.parametrize(
    ("routing", "labels", "text"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), r"\(3, 2\), labels \(4,\); pass one label per row"),
        (np.zeros((0, 2)), np.zeros(0, int), r"\(0, 2\); pass \(n, e\)"),
        (np.zeros(3), np.zeros(3, int), r"\(3,\); pass \(n, e\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(routing, labels, text):
    for function in (class_specificity, class_spread, layer_statistics):
        with pytest.raises(ValueError, match=text):
            function(routing, labels)
    with pytest.raises(ValueError, match=text):
        mean_by_class(routing, labels, 5)


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(ValueError, match="labels are 0 to 2, num_classes is 2; pass labels from 0"):
        mean_by_class(ROUTING, LABELS, 2)
