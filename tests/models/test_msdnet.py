import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_networks import assert_close, draw, shapes

from condconv_jax.analysis.madds import count_madds, layer_costs
from condconv_jax.models.msdnet import MSDNet
from condconv_jax.tasks import Classification
from condconv_jax.training import TrainState, train_step

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def tiny(**options):
    """Three exits, after layers 1, 3 and 6 of 6; a scale is dropped after layers 2 and 4."""
    small = {
        "num_classes": 5,
        "num_exits": 3,
        "base": 1,
        "step": 1,
        "step_mode": "linear",
        "growth_rate": 2,
        "initial_channels": 3,
        "classifier_channels": 4,
        "method": "reference",
    }
    return MSDNet(**small | options)


def all_exits(model, variables, images):
    apply = jax.jit(lambda v, x: model.apply(v, x, mutable=["exits"]))
    logits, state = apply(variables, images)
    assert set(state) == {"exits"}
    return logits, state["exits"]["logits"]


@pytest.mark.parametrize(
    ("options", "want"),
    [
        # The official recipes for anytime prediction and for budgeted batches.
        ({}, range(4, 23, 2)),
        (
            {"num_exits": 7, "base": 1, "step": 1, "step_mode": "linear"},
            [1, 3, 6, 10, 15, 21, 28],
        ),
        ({"num_exits": 3, "base": 2, "step": 2, "step_mode": "linear"}, [2, 5, 10]),
        ({"num_exits": 1}, [4]),
    ],
)
def test_where_exits_stand(options, want):
    assert MSDNet(**options).exit_layers() == tuple(want)


def test_shapes_of_the_official_network():
    """The widths that the authors' port prints of its network, check_msdnet/log.txt."""
    found = shapes(MSDNet(10))
    kernel = lambda name: found[f"{name}/kernel"]
    assert [kernel(f"stem_{s}/conv") for s in (1, 2, 3)] == [
        (3, 3, 3, 16), (3, 3, 16, 32), (3, 3, 32, 64)
    ]  # fmt: skip
    assert kernel("layer_2_scale_3_finer/bottleneck/conv") == (1, 1, 44, 24)
    assert kernel("layer_2_scale_3_finer/conv/conv") == (3, 3, 24, 12)
    assert kernel("layer_2_scale_3_same/bottleneck/conv") == (1, 1, 88, 48)
    assert kernel("layer_17_scale_3_reduction/conv") == (1, 1, 332, 164)
    assert kernel("layer_22_scale_3_same/bottleneck/conv") == (1, 1, 260, 96)
    reads = [kernel(f"exit_{k}/conv_1/conv")[2] for k in range(1, 11)]
    assert reads == [160, 208, 256, 164, 212, 260, 308, 188, 236, 284]
    # Each scale is there for as long as it is in the log: 8, 16 and 22 layers.
    last = [max(n for n in range(1, 23) if f"layer_{n}_scale_{s}_same/bottleneck/conv/kernel"
                in found) for s in (1, 2, 3)]  # fmt: skip
    assert last == [8, 16, 22]
    # "# of params: 4839544" there; the same in osmr/imgclsmob, pytorchcv/models/msdnet_cifar10.py.
    assert sum(map(np.prod, found.values())) == 4_839_544


def test_madds_of_the_official_network():
    """The budgets of ten exits on CIFAR-100 in Boosted Dynamic Neural Networks (arXiv 2211.16726).

    Read off the markers of the official code's figures/cifar100_any_msdnet.png, within 0.1 M. That
    counts all scales up to an exit and all classifiers up to its own, which we add up here, and the
    pixels of ReLU and pooling, half to one per cent, which we do not count.
    """
    want = [15.16, 25.58, 37.84, 52.04, 62.23, 74.10, 87.77, 100.06, 110.10, 121.70]
    model = MSDNet(100)
    rows, found = layer_costs(model, 32), shapes(model)
    stem = sum(row.total for row in rows if row.name.startswith("stem"))
    got, classifiers = [], []
    for number, end in enumerate(model.exit_layers(), 1):
        c = found[f"exit_{number}/conv_1/conv/kernel"][2]
        classifiers.append(4 * 4 * 9 * c * 128 + 2 * 2 * 9 * 128 * 128 + 128 * 100)
        names = tuple(f"layer_{n}_" for n in range(1, end + 1))
        layers = sum(row.total for row in rows if row.name.startswith(names))
        got.append((stem + layers + sum(classifiers)) / 1e6)
    ratios = np.divide(got, want)
    assert ratios.min() > 0.985
    assert ratios.max() < 1.0
    last = sum(row.total for row in rows if row.name.startswith("exit_10/"))
    assert last == classifiers[-1]


def test_madds_by_hand():
    """Two scales and two layers on 8x8 images, the finer scale dropped after the first layer.

    Stem: 64*27*3 + 16*27*6 = 7776, to 3 and 6 channels at 8x8 and 4x4.
    Layer 1, scale 1: 64*3*2 + 64*18*2 = 2688 of 3 channels, to 5.
    Layer 1, scale 2: from the finer 64*3*2 + 16*18*2 = 960, from its own 6 (bottleneck 4)
      16*6*4 + 16*36*2 = 1536, to 6 + 2 + 2 = 10.
    Layer 2, scale 2: from the finer 5 64*5*2 + 16*18*2 = 1216, from its own 10
      16*10*4 + 16*36*2 = 1792, to 14; half of 3 + 2 + 2 is 3, times 2: 16*14*6 = 1344 to 6.
    Exits: of 10 channels 4*90*4 + 36*4 + 4*5 = 1604, of 6 4*54*4 + 36*4 + 4*5 = 1028.
    Exit 1 needs no scale 1 of layer 1.
    """
    model = tiny(num_exits=2, step_mode="even", growth_factors=(1, 2), bottleneck_factors=(1, 2))
    assert count_madds(model.clone(exit=1), 8) == 7776 + (960 + 1536) + 1604
    assert count_madds(model, 8) == 7776 + 2688 + (960 + 1536) + (1216 + 1792 + 1344) + 1028


def test_later_exits_cost_more():
    costs = [count_madds(tiny(exit=k), 32) for k in (1, 2, 3)]
    assert costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize("options", [{}, {"reduction": 0.0, "step_mode": "even", "num_exits": 2}])
def test_an_exit_is_the_network_cut_there(options):
    model = tiny(exit=2, **options)
    variables, images = draw(model)
    logits, sown = all_exits(model, variables, images)
    assert sown.shape == (model.num_exits, 8, 5)
    np.testing.assert_array_equal(logits, sown[1])
    for k in range(model.num_exits):
        cut = jax.jit(model.clone(exit=k).apply)(variables, images)
        assert_close(cut, sown[k - 1], 1e-5)
    assert np.std(sown, axis=0).min() > 1e-3  # the exits do not all say the same


def test_training_sows_all_exits_whichever_is_returned():
    model, images = tiny(exit=2), jnp.zeros((8, 16, 16, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits, state = jax.eval_shape(
        lambda v: model.apply(v, images, train=True, mutable=["batch_stats", "exits"]), variables
    )
    assert logits.shape == (8, 5)
    assert state["exits"]["logits"].shape == (3, 8, 5)
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_evaluation_computes_only_what_the_exit_needs():
    def modules(**options):
        return {row.name.split("/")[0] for row in layer_costs(tiny(**options), 32) if row.conv}

    stem = {"stem_1", "stem_2", "stem_3"}
    assert modules(exit=1) == stem | {"layer_1_scale_3_finer", "layer_1_scale_3_same", "exit_1"}
    second = modules(exit=2)
    # Layer 3 is the first without the finest scale; only its coarsest counts for the exit.
    assert {n for n in second if n.startswith("layer_3")} == {
        "layer_3_scale_3_finer", "layer_3_scale_3_same", "layer_3_scale_3_reduction"
    }  # fmt: skip
    assert "layer_2_scale_1_same" not in second
    assert "layer_1_scale_1_same" in second
    assert "exit_1" not in second


def test_without_reduction_all_scales_stay():
    found = shapes(tiny(reduction=0.0))
    layers = {name.split("/")[0] for name in found if name.startswith("layer")}
    assert not any("reduction" in name for name in layers)
    # But at the end, where nothing could read them any more.
    of_scale = [{int(n.split("_")[1]) for n in layers if f"scale_{s}_same" in n} for s in (1, 2, 3)]
    assert of_scale == [set(range(1, 5)), set(range(1, 6)), set(range(1, 7))]


@pytest.mark.parametrize(("size", "scales"), [(32, 3), (28, 3), (33, 4)])
def test_logits_for_other_images_and_numbers_of_scales(size, scales):
    factors = (1, 2, 4, 4)[:scales]
    model = tiny(growth_factors=factors, bottleneck_factors=factors, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert set(variables) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, mutable=["exits"]), variables, images
    )
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    assert (state["exits"]["logits"].shape, logits.dtype) == ((3, 2, 5), jnp.float32)


def test_methods_agree(float64):
    model = tiny(dtype=float64, exit=1, growth_factors=(1, 2), bottleneck_factors=(1, 2))
    variables, images = draw(model)
    want = jax.jit(model.apply)(variables, images)
    assert_close(jax.jit(model.clone(method="auto").apply)(variables, images), want, 1e-6)


@pytest.mark.parametrize("reduction", [0.5, 0.0])
def test_training_moves_every_parameter(reduction):
    scales = {"growth_factors": (1, 2), "bottleneck_factors": (1, 2), "reduction": reduction}
    model = tiny(num_exits=2, step_mode="even", growth_rate=4, classifier_channels=8, **scales)
    task = Classification(model, 16, mean=(0.5,) * 3, std=(0.25,) * 3)
    optimizer = optax.sgd(0.01)
    variables, images = draw(model)
    params, state = variables.pop("params"), variables
    assert set(state) == {"batch_stats"}
    pixels = jnp.clip(128 + 64 * images, 0, 255).astype(jnp.uint8)
    batch = {"image": pixels, "label": jnp.arange(8) % 5}
    before = after = TrainState(jnp.int32(0), params, state, optimizer.init(params))
    step = jax.jit(lambda state: train_step(task, optimizer, state, batch, jax.random.key(0)))
    losses = []
    for _ in range(3):
        after, metrics = step(after)
        losses.append(float(metrics["loss"].total))
    assert losses[-1] < losses[0]
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for part in ("params", "model_state"):
        old, new = (jax.tree_util.tree_leaves_with_path(getattr(s, part)) for s in (before, after))
        for (path, a), (_, b) in zip(old, new, strict=True):
            assert not np.array_equal(a, b), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_exits": 0}, "MSDNet: num_exits is 0; pass at least 1"),
        ({"base": 0}, "MSDNet: base is 0; pass at least 1"),
        ({"step": -1}, "step is -1; pass at least 1"),
        ({"growth_rate": 0}, "growth_rate is 0; pass at least 1"),
        ({"initial_channels": 0}, "initial_channels is 0"),
        ({"classifier_channels": 0}, "classifier_channels is 0"),
        (
            {"step_mode": "lin"},
            "MSDNet: unknown step_mode 'lin'; choose one of 'even', 'linear'; did you mean 'linea",
        ),
        (
            {"growth_factors": (1, 2)},
            r"growth_factors is \(1, 2\), bottleneck_factors \(1, 2, 4\); pass one of each for",
        ),
        ({"growth_factors": (), "bottleneck_factors": ()}, r"growth_factors is \(\), .*at least 1"),
        ({"bottleneck_factors": (1, 2, 0)}, r"bottleneck_factors \(1, 2, 0\); pass .*at least 1"),
        (
            {"growth_rate": 3, "growth_factors": (1, 1, 2)},
            "growth_rate is 3, growth_factors .*; pass such that all products but the first are",
        ),
        ({"reduction": 1.5}, r"MSDNet: reduction is 1.5; pass 0 \(none\) to 1"),
        ({"reduction": -0.1}, "reduction is -0.1"),
        ({"exit": 4}, "MSDNet: exit is 4; pass 1 to 3, or 0 for the last"),
        ({"exit": -1}, "exit is -1"),
        ({"method": "deptwise"}, "unknown method 'deptwise'.*did you mean 'depthwise'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        shapes(tiny(**options))
