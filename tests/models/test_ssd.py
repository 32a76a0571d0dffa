"""SSD on MobileNetV1: shapes, placement, and what it shares with its backbone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import by_path, draw, shapes

from condconv_jax import models

SMALL = {"width": 1 / 16, "num_experts": 3, "early_strides": (1, 1, 1)}
PIXELS = 32


def detector(classes=5, **options):
    return models.create("ssd300_mobilenet_v1", classes, **SMALL | options)


def test_a_prediction_for_each_anchor():
    model = detector()
    images = jax.ShapeDtypeStruct((2, 300, 300, 3), jnp.float32)
    full = models.create("ssd300_mobilenet_v1", 20, num_experts=8)
    found, _ = jax.eval_shape(full.init_with_output, jax.random.key(0), images)
    assert found.codes.shape == (2, 1917, 4)
    assert found.logits.shape == (2, 1917, 21)
    for size in (PIXELS, 33):
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        found, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert found.codes.shape[1] == len(model.anchors(size))


def test_predictions_are_of_the_cells_of_their_anchors():
    # What changes in a corner of the picture changes the predictions of fine anchors there only.
    # The upper right one: exchanging rows and columns would show.
    model = detector(num_experts=0)
    variables, images = draw(model, (1, 64, 64, 3))
    changed = images.at[:, :6, -6:].add(5.0)
    apply = jax.jit(model.apply)
    one, other = apply(variables, images), apply(variables, changed)
    fine = 3 * 32 * 32  # a stride of 2 up to layer 12: 32 cells a side
    anchors = model.anchors(64)[:fine]
    y, x = ((anchors[:, :2] + anchors[:, 2:]) / 2).T
    # The field of view of layer 12 reaches over half the picture.
    far, near = (y > 0.8) & (x < 0.2), (y < 0.05) & (x > 0.95)
    for before, after in zip(one, other, strict=True):
        moved = np.abs(np.asarray(before - after)).max(axis=(0, 2)) > 1e-6
        assert not moved[:fine][far].any()
        assert moved[:fine][near].all()


def test_predictions_start_as_rare_objects_at_their_anchors():
    model = detector()
    images = jnp.ones((1, PIXELS, PIXELS, 3))
    found, _ = jax.jit(model.init_with_output)(jax.random.key(0), images)
    # Kernels of 0.01 beside a bias of -log(99).
    np.testing.assert_allclose(jax.nn.sigmoid(found.logits), 0.01, atol=0.005)
    np.testing.assert_allclose(found.codes, 0, atol=0.2)


def test_bfloat16_computes_low_and_stores_and_returns_float32():
    images = jnp.ones((2, PIXELS, PIXELS, 3))
    made = detector(dtype="bfloat16")
    run = functools.partial(made.init_with_output, capture_intermediates=True, mutable=True)
    found, variables = jax.eval_shape(run, jax.random.key(0), images)
    assert {part.dtype for part in found} == {jnp.dtype("float32")}
    inside = variables.pop("intermediates")
    assert inside["layer_18"]["__call__"][0].dtype == jnp.bfloat16
    assert inside["predictor_18"]["classes"]["__call__"][0].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def experts_of(**options):
    """Layers with experts, by their module."""
    model = detector(**options)
    found = shapes(model, PIXELS)
    return {path.split("/")[0] for path, shape in found.items() if len(shape) == 5}


def test_conditional_layers():
    blocks = {f"layer_{layer}" for layer in range(7, 19)}
    predictors = {f"predictor_{layer}" for layer in (12, 14, 15, 16, 17, 18)}
    assert experts_of() == blocks
    assert experts_of(num_experts=0) == set()
    assert experts_of(begin_layer=15) == {f"layer_{layer}" for layer in (15, 16, 17, 18)}
    assert experts_of(cond_classifier=True) == blocks | predictors
    assert experts_of(begin_layer=19, cond_classifier=True) == predictors
    assert experts_of(only_layer=14) == {"layer_14"}
    # Group 5 is that of 1024 channels, 6 the extra layers.
    assert experts_of(cond_groups=(5, 6)) == {f"layer_{layer}" for layer in range(13, 19)}
    with pytest.raises(
        ValueError, match=r"begin_layer 19 leaves .*, or set cond_classifier to True"
    ):
        experts_of(begin_layer=19)
    with pytest.raises(ValueError, match=r"is 25; pass 1 to 24 .* 24 the last classifier"):
        experts_of(begin_layer=25)


def test_relatives_leave_the_predictors_alone():
    found = shapes(detector(cond_layer="dynamic", cond_classifier=True), PIXELS)
    with_experts = {path.split("/")[0] for path, shape in found.items() if len(shape) == 5}
    assert with_experts == {f"layer_{layer}" for layer in range(7, 19)}


def test_experts_mixed_by_hand_are_the_static_network():
    model, twin = detector(cond_classifier=True), detector(num_experts=0)
    variables, images = draw(model, (1, PIXELS, PIXELS, 3))
    found, recorded = jax.jit(functools.partial(model.apply, mutable=["routing"]))(
        variables, images
    )
    routing = {p.rsplit("/", 1)[0]: r for p, r in by_path(recorded["routing"]).items()}

    def mixed(path, leaf):
        name = "/".join(key.key for key in path[:-1])
        if path[0].key.startswith("router"):
            return None
        return jnp.tensordot(routing[name][0], leaf, 1) if leaf.ndim == 5 else leaf

    params = jax.tree_util.tree_map_with_path(mixed, variables["params"])
    params = {name: tree for name, tree in params.items() if not name.startswith("router")}
    expected = jax.jit(twin.apply)({**variables, "params": params}, images)
    for got, want in zip(found, expected, strict=True):
        # Sums over experts and channels in another order, in float32.
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_what_depends_on_the_classes_and_what_a_classifier_has_too():
    few, many = (shapes(detector(classes), PIXELS) for classes in (3, 7))
    differs = {path for path in few if few[path] != many[path]}
    model = detector()
    renewed = model.classifiers()
    assert {p for p in few if any(p == m or p.startswith(f"{m}/") for m in renewed)} == differs
    # A classifier of the same options has all of the backbone, in the same shapes.
    classifier = shapes(models.create("mobilenet_v1", 9, **SMALL), PIXELS)
    backbone = {path for path in few if path.split("/")[0] in model.backbone()}
    assert backbone == {p for p in classifier if p.split("/")[0] not in ("classifier", "router_15")}
    assert {path: few[path] for path in backbone} == {path: classifier[path] for path in backbone}


def test_squeeze_excite_and_refusals():
    assert "layer_3/se/reduce/kernel" in shapes(detector(squeeze_excite=0.25), PIXELS)
    with pytest.raises(ValueError, match=r"SSD300MobileNetV1: squeeze_excite is 2\.0; pass 0"):
        shapes(detector(squeeze_excite=2.0), PIXELS)
