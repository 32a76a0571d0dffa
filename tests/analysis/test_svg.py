import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from condconv_jax.analysis import looks
from condconv_jax.analysis.svg import heat_maps, histograms, lines, round_ticks, viridis

EDGES = np.array([0.0, 0.5, 1.0])


def titles(drawing):
    nodes = ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}title")
    return [node.text for node in nodes]


def test_cells_tell_class_layer_expert_and_value():
    values = np.array([[0.0, 0.25], [1.0, 0.1234]])
    drawing = heat_maps({"layer & 1": values}, ["<a>", "b"], 0.0, 1.0, label="mean")
    assert titles(drawing) == [
        "<a>, layer & 1, expert 0: 0.000",
        "<a>, layer & 1, expert 1: 0.250",
        "b, layer & 1, expert 0: 1.000",
        "b, layer & 1, expert 1: 0.123",
    ]


def test_bins_tell_their_share():
    drawing = histograms(
        {"a": np.array([0.25, 0.75])}, EDGES, "#123456", notes={"a": "note"}, band=(-0.1, 0.1)
    )
    assert titles(drawing) == [
        "a: 25.00 % of the weights from 0.00 to 0.50",
        "a: 75.00 % of the weights from 0.50 to 1.00",
    ]
    heights = re.findall(r'height="([^"]*)" fill="#123456"', drawing)
    assert float(heights[1]) == pytest.approx(3 * float(heights[0]), rel=1e-3)


def test_points_tell_their_value():
    series = {"run": {"first": 0.5, "last": 1.0}, "other": {"last": 0.25}}
    drawing = lines(
        series,
        ["first", "last"],
        looks(list(series)),
        title="t",
        top=1.0,
        reference=(0.1, "chance"),
    )
    assert titles(drawing) == ["run, first: 0.500", "run, last: 1.000", "other, last: 0.250"]
    assert ">chance</text>" in drawing


def test_the_colours_are_viridis():
    exact = matplotlib.colormaps["viridis"]
    for value in np.linspace(0, 1, 33):
        found = np.array(list(bytes.fromhex(viridis(value, 0.0, 1.0)[1:])))
        np.testing.assert_allclose(found, 255 * np.array(exact(value)[:3]), atol=11)
    assert viridis(-1.0, 0.0, 1.0) == viridis(0.0, 0.0, 1.0)
    assert viridis(float("nan"), 0.0, 1.0) == "#d0d0d0"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 1.02, [0, 0.5, 1]),
        (0, 100, [0, 50, 100]),
        (0, 0.08, [0, 0.02, 0.04, 0.06, 0.08]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert round_ticks(low, high) == expected
