import numpy as np

from condconv_jax.analysis import find_favourites, most_varied_experts, top_images

# Expert 0 is weighed alike by all, expert 1 most by images 3 and 0, expert 2 by 1, then 2 and 3.
ROUTING = np.array([[0.5, 0.8, 0.0], [0.5, 0.1, 1.0], [0.5, 0.2, 0.4], [0.5, 0.9, 0.4]])


def test_the_heaviest_images_come_first_and_equal_ones_in_their_order():
    assert top_images(ROUTING, 3).tolist() == [[0, 1, 2], [3, 0, 2], [1, 2, 3]]
    assert top_images(ROUTING, 9).shape == (3, 4)


def test_experts_that_vary_are_shown():
    assert most_varied_experts(ROUTING, 2).tolist() == [1, 2]
    assert most_varied_experts(ROUTING, 9).tolist() == [0, 1, 2]


def test_favourites_are_read_by_row_and_once():
    asked = []

    def picture(row):
        asked.append(row)
        return np.full((2, 2, 3), row, np.uint8)

    labels = np.array([7, 8, 9, 7])
    found = find_favourites(ROUTING, labels, picture, experts=2, pictures=2)
    assert found.experts.tolist() == [1, 2]
    assert found.pictures[:, :, 0, 0, 0].tolist() == [[3, 0], [1, 2]]
    assert found.labels.tolist() == [[7, 7], [8, 9]]
    np.testing.assert_array_equal(found.weights, [[0.9, 0.8], [1.0, 0.4]])
    assert sorted(asked) == [0, 1, 2, 3]
