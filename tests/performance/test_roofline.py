"""Costs worked out by hand, on layers small enough to do it."""

import jax
import pytest

from condconv_jax import ops
from condconv_jax.performance import roofline
from condconv_jax.performance.layers import LAYERS, Layer, device_arrays
from condconv_jax.performance.machine import Peaks
from condconv_jax.performance.passes import compile_pass
from condconv_jax.performance.roofline import Bound, Cost, bound, cost

# For all: b = 2 examples, e = 5 experts, so that routing is 10 values, 40 bytes.
POINTWISE = Layer("pointwise", 4, 3, 7)
CLASSIFIER = Layer("classifier", 1, 3, 7)
DENSE = Layer("dense", 4, 3, 7, kernel=3, stride=2)
DEPTHWISE = Layer("depthwise", 4, 6, 6, kernel=3, depthwise=True)

GOLDENS = [
    # n = 16 positions, P = 3*7 = 21 weights. Values: x 2*16*3 = 96, y 2*16*7 = 224,
    # experts 5*21 = 105, kernels 2*21 = 42.
    # MADDs: product 2*16*21 = 672, mixing 2*5*21 = 210.
    # Values moved: x + y + experts + 2 kernels = 96 + 224 + 105 + 84 = 509.
    (POINTWISE, "pointwise", 672 + 210, 4 * 509 + 40, 3 * 882, 3 * 2076),
    (POINTWISE, "reference", 882, 2076, 3 * 882, 3 * 2076),
    (POINTWISE, "mapped", 882, 2076, 3 * 882, 3 * 2076),
    (POINTWISE, "native", 882, 2076, 3 * 882, 3 * 2076),
    # A 1x1 window is its pixel: nothing is laid out.
    (POINTWISE, "spatial", 882, 2076, 3 * 882, 3 * 2076),
    # No kernels in memory: 509 - 84 = 425 values; mixing once more for the gradients.
    (POINTWISE, "tiled", 882, 4 * 425 + 40, 3 * 882 + 210, 3 * 1740),
    (POINTWISE, "fused", 882, 4 * 425 + 40, 3 * 882 + 210, 3 * 1740),
    # Maps: x for each of 5 experts, 2*16*5*3 = 480. MADDs: 5*672 = 3360, and one for each of the
    # maps' values. Values moved: x + y + experts + 2 maps = 96 + 224 + 105 + 960 = 1385.
    (POINTWISE, "mixture", 3360 + 480, 4 * 1385 + 40, 3 * 3840, 3 * 5580),
    # n = 1: x 2*3 = 6, y 2*7 = 14, experts 105, kernels 42. MADDs: 2*21 = 42, mixing 210.
    # Values moved: 6 + 14 + 105 + 84 = 209.
    (CLASSIFIER, "pointwise", 252, 4 * 209 + 40, 756, 3 * 876),
    # Maps 2*1*5*3 = 30. MADDs 5*42 + 30 = 240. Values moved: 6 + 14 + 105 + 60 = 185: on a 1x1
    # map the mixture takes less of both.
    (CLASSIFIER, "mixture", 240, 4 * 185 + 40, 720, 3 * 780),
    # Stride 2: n = 2*2 = 4. P = 9*3*7 = 189. x 2*16*3 = 96, y 2*4*7 = 56, experts 945,
    # kernels 378. MADDs: product 2*4*189 = 1512, mixing 2*5*189 = 1890.
    # Values moved: 96 + 56 + 945 + 756 = 1853.
    (DENSE, "reference", 3402, 4 * 1853 + 40, 3 * 3402, 3 * 7452),
    (DENSE, "mapped", 3402, 7452, 3 * 3402, 3 * 7452),
    (DENSE, "native", 3402, 7452, 3 * 3402, 3 * 7452),
    # Windows: 2*4*9*3 = 216, twice forward: 1853 + 432 = 2285. With gradients five times, and x
    # twice rather than three times: 3*1853 + 1080 - 96 = 6543.
    (DENSE, "spatial", 3402, 4 * 2285 + 40, 3 * 3402, 4 * 6543 + 120),
    # 1853 - 756 = 1097 values; 3*3402 + 1890 = 12096 MADDs.
    (DENSE, "tiled", 3402, 4 * 1097 + 40, 12096, 3 * 4428),
    (DENSE, "fused", 3402, 4 * 1097 + 40, 12096, 3 * 4428),
    # Maps: the outputs of each expert, 2*4*5*7 = 280. MADDs 5*1512 + 280 = 7840.
    # Values moved: 96 + 56 + 945 + 560 = 1657.
    (DENSE, "mixture", 7840, 4 * 1657 + 40, 3 * 7840, 3 * 6668),
    # n = 16, P = 9*1*6 = 54. x = y = 2*16*6 = 192, experts 270, kernels 108.
    # MADDs: product 2*16*54 = 1728, mixing 2*5*54 = 540.
    # Values moved: 192 + 192 + 270 + 216 = 870.
    (DEPTHWISE, "depthwise", 2268, 4 * 870 + 40, 3 * 2268, 3 * 3520),
    (DEPTHWISE, "reference", 2268, 3520, 3 * 2268, 3 * 3520),
    (DEPTHWISE, "native", 2268, 3520, 3 * 2268, 3 * 3520),
    # Windows 2*16*9*6 = 1728: 870 + 3456 = 4326; with gradients 3*870 + 8640 - 192 = 11058.
    (DEPTHWISE, "spatial", 2268, 4 * 4326 + 40, 3 * 2268, 4 * 11058 + 120),
    # Maps 2*16*5*6 = 960. MADDs 5*1728 + 960 = 9600. Values moved: 192 + 192 + 270 + 1920 = 2574.
    (DEPTHWISE, "mixture", 9600, 4 * 2574 + 40, 3 * 9600, 3 * 10336),
]


@pytest.mark.parametrize(
    ("layer", "method", "madds", "moved", "all_madds", "all_moved"),
    GOLDENS,
    ids=[f"{layer.name}-{method}" for layer, method, *_ in GOLDENS],
)
def test_costs(layer, method, madds, moved, all_madds, all_moved):
    assert cost(layer, 2, 5, method) == Cost(2 * madds, moved)
    assert cost(layer, 2, 5, method, gradients=True) == Cost(2 * all_madds, all_moved)


def test_half_the_bytes_in_bfloat16_but_for_routing():
    assert cost(POINTWISE, 2, 5, "pointwise", itemsize=2).bytes == 2 * 509 + 40


def test_every_method_that_can_run_a_layer_has_a_cost():
    assert set(ops.METHODS) == set(roofline.METHODS)
    assert {(layer.name, method) for layer, method, *_ in GOLDENS} >= {
        (layer.name, method)
        for layer in (POINTWISE, DENSE, DEPTHWISE)
        for method in roofline.applicable(layer)
    }


@pytest.mark.parametrize("direction", ["forward", "gradients"])
def test_the_compiler_counts_the_same_arithmetic(direction):
    # Two matrix products, which XLA counts exactly (of other methods also index arithmetic).
    layer = LAYERS["pw128s"]
    arrays = device_arrays(layer.arrays(3, 5))
    compiled = compile_pass(layer.op("pointwise"), arrays, direction)
    counted = compiled.cost_analysis()["flops"]
    ours = cost(layer, 3, 5, "pointwise", gradients=direction == "gradients")
    assert counted == pytest.approx(ours.flops, rel=0.01)


def test_the_longer_of_arithmetic_and_memory_binds():
    peaks = Peaks(matmul=100.0, read=10.0, fresh=1.0)
    assert bound(Cost(200, 10), peaks) == Bound(2.0, "arithmetic")
    assert bound(Cost(200, 30), peaks) == Bound(3.0, "memory")


@pytest.mark.parametrize(
    ("layer", "method", "words"),
    [
        (POINTWISE, "pointwize", "cost: unknown method 'pointwize'.*did you mean 'pointwise'"),
        (DENSE, "pointwise", "cost: dense: method 'pointwise' runs 1x1 kernels"),
        (DENSE, "depthwise", "cost: dense: method 'depthwise' runs one group per channel"),
        (DEPTHWISE, "tiled", "cost: depthwise: method 'tiled' runs one group"),
    ],
)
def test_what_cannot_run_has_no_cost(layer, method, words):
    with pytest.raises(ValueError, match=words):
        cost(layer, 2, 5, method)


def test_markdown():
    # Forward 2*882 FLOP at 1.764 FLOP/s: 1000 s; the 2076 bytes take 20.76.
    peaks = Peaks(matmul=1.764, read=100.0, fresh=1.0)
    lines = roofline.markdown(roofline.rows([POINTWISE], 2, 5, peaks)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    # The mixture, those with all kernels in memory, and the tiled one.
    assert len(lines) == 2 + 3
    assert (
        "| pointwise | reference, pointwise, spatial, mapped, native "
        "| 0.00000176 | 0.00208 | 1000000 | arithmetic "
        "| 0.00000529 | 0.00623 | 3000000 | arithmetic |"
    ) in lines


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123456, "0.0123"),
        (1.5, "1.50"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (1234.5, "1234"),
    ],
)
def test_three_digits(value, text):
    assert roofline.three_digits(value) == text


def test_layers_of_the_table_run():
    # Shapes only: names, sizes and groups fit together in every layer.
    for layer in LAYERS.values():
        x, experts, routing, slope = layer.arrays(1, 2)
        y = jax.eval_shape(layer.op(), x, experts, routing)
        assert y.shape == slope.shape, layer.name
        assert jax.eval_shape(layer.static_op(), x, experts[0]).shape == slope.shape, layer.name
