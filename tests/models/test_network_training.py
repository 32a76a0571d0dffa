"""A training step of every network: what it moves, and on eight devices as on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_networks import assert_close, by_path, draw

from condconv_jax import models, tasks, training
from condconv_jax.runtime import batch_sharding, make_mesh, replicated

KEY = jax.random.key(0)
NAMES = models.names("classification")


CLASSES, PIXELS, BATCH = 5, 8, 8
# Maps of 2x2 pixels at the end: on one pixel a depthwise kernel is one number for each channel,
# which batch norm takes away.
SMALL = {"width": 0.1, "num_experts": 3, "early_strides": (1, 1, 1)}
FAMILIES = {
    "mobilenet_v1": SMALL | {"begin_layer": 13, "dropout": 0.2},
    "mobilenet_v2": SMALL | {"depth": 0.1, "begin_layer": 7},
    "mnasnet_a1": SMALL | {"depth": 0.1, "cond_groups": (3, 7)},
    "efficientnet_b0": SMALL | {"depth": 0.1, "dropout": 0.2},
    "resnet50": SMALL | {"depth": 0.1, "routing": (("noise", "shake"),)},
    "resnet_cifar": {"width": 0.25, "num_experts": 3, "blocks": 1},
    "msdnet": {
        "num_exits": 2,
        "base": 2,
        "step": 1,
        "growth_rate": 2,
        "growth_factors": (1, 2, 4),
        "bottleneck_factors": (1, 2, 4),
        "initial_channels": 4,
        "classifier_channels": 4,
    },
}
RATE = 0.01
# A scale of zero at a block's end hides from the loss what is before it, until it moves; what the
# router gives the projection is not hidden.
HIDDEN = {
    f"layer_{layer}/{leaf}"
    for layer in range(2, 6)
    for leaf in (
        "reduce/kernel", "reduce_bn/scale", "reduce_bn/bias",
        "spatial/kernel", "spatial_bn/scale", "spatial_bn/bias",
        "expand/kernel",
    )
}  # fmt: skip
HIDDEN_BASIC = {
    f"layer_{layer}/{leaf}"
    for layer in range(2, 5)
    for leaf in ("first/kernel", "first_bn/scale", "first_bn/bias", "second/kernel")
}


def shifts(*layers):
    return {f"layer_{layer}/project_bn/bias" for layer in layers}


# Parameters without a gradient, in the first step and from the second on. The output of a block of
# inverted residuals has no activation. Where all that reads it are static 1x1 convolutions, through
# skips or not, a constant added to a channel adds one to each of theirs, which the batch norm after
# them takes away. Conditional ones also route by it, each example otherwise.
WITHOUT_GRADIENT = {
    "mobilenet_v2": (shifts(2, 3, 4, 5), shifts(2, 3, 4, 5)),
    "mnasnet_a1": (shifts(4, 5, 6), shifts(4, 5, 6)),
    "efficientnet_b0": (shifts(2, 3, 4, 8), shifts(2, 3, 4, 8)),
    "resnet50": (HIDDEN, set()),
    "resnet_cifar": (HIDDEN_BASIC, set()),
}


def prepare(name):
    """(step, state, batch): a step of stochastic gradient descent in float64 without momentum."""
    options = dict(FAMILIES[name])
    if "routing" in options:
        options["routing"] = dict(options["routing"])
    model = models.create(name, num_classes=CLASSES, dtype="float64", **options)
    task = tasks.Classification(model, PIXELS, mean=(0.5,) * 3, std=(0.25,) * 3)
    variables, _ = draw(model, dtype=jnp.float64)
    params = variables.pop("params")
    # As they begin, where all else is drawn.
    if last := {"resnet50": "expand_bn", "resnet_cifar": "second_bn"}.get(name):
        for block, modules in params.items():
            if last in modules:
                params[block][last]["scale"] = jnp.zeros_like(modules[last]["scale"])
    optimizer = optax.sgd(RATE)
    state = training.TrainState(jnp.int32(0), params, variables, optimizer.init(params))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 255, (BATCH, PIXELS, PIXELS, 3), np.uint8),
        "label": np.arange(BATCH, dtype=np.int32) % CLASSES,
    }
    return jax.jit(functools.partial(training.train_step, task, optimizer)), state, batch


@functools.cache
def trained(name):
    """The states before and after two steps, and the losses."""
    with jax.enable_x64(True):
        step, state, batch = prepare(name)
        states, losses = [state], []
        for _ in range(2):
            state, metrics = step(state, batch, KEY)
            states.append(state)
            losses.append(float(metrics["loss"].total) / BATCH)
    return states, losses


def unchanged(before, after):
    """Leaves whose gradient is nothing but rounding."""
    before, after = by_path(jax.device_get(before)), by_path(jax.device_get(after))
    return {path for path, leaf in after.items() if np.abs(leaf - before[path]).max() < 1e-12}


def slow_but(*fast):
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
    ]


# MobileNetV2 and MnasNet have EfficientNet's blocks, ResNet-50 is much like the smaller ResNet, and
# the devices share them all alike.
QUICK = set(FAMILIES) - {"mobilenet_v2", "mnasnet_a1", "resnet50"}


@pytest.mark.parametrize("name", slow_but(*QUICK))
def test_a_step_moves_every_parameter_and_statistic(name):
    (first, second, third), losses = trained(name)
    assert np.isfinite(losses).all()
    at_first, later = WITHOUT_GRADIENT.get(name, (set(), set()))
    assert unchanged(first.params, second.params) == at_first
    assert unchanged(second.params, third.params) == later
    assert unchanged(first.model_state, second.model_state) == set()
    assert jax.tree.structure(first) == jax.tree.structure(third)


@pytest.mark.parametrize("name", slow_but("efficientnet_b0"))
def test_eight_devices_train_as_one(name):
    """Batch norm is over the whole batch, and all noise drawn for it, not for a device's part."""
    (_, want, _), losses = trained(name)
    with jax.enable_x64(True):
        mesh = make_mesh()
        step, state, batch = prepare(name)
        with jax.set_mesh(mesh):
            state = jax.device_put(state, replicated(mesh))
            got, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)), KEY)
        # The order of summation differs, in float64; batch norms of a few values amplify it.
        assert float(metrics["loss"].total) / BATCH == pytest.approx(losses[0], rel=1e-9)
        # By 2e-9 of the largest entry in MSDNet, on a processor that sums otherwise.
        assert_close(got.params, want.params, 1e-8)
        assert_close(got.model_state, want.model_state, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_full_size_network_trains(name):
    options = {} if name == "msdnet" else {"num_experts": 2}
    size = 32 if name == "msdnet" else 64  # that one is for CIFAR
    model = models.create(name, num_classes=10, **options)
    task = tasks.Classification(model, size, mean=(0.5,) * 3, std=(0.25,) * 3)
    optimizer = training.make_optimizer("sgd", 0.01)
    state = training.init_state(task, optimizer, KEY)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 255, (2, size, size, 3), np.uint8),
        "label": np.array([3, 7], np.int32),
    }
    after, metrics = jax.jit(functools.partial(training.train_step, task, optimizer))(
        state, batch, KEY
    )
    assert np.isfinite(float(metrics["loss"].total))
    assert np.isfinite(float(metrics["gradient_norm"].total))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(after.params)))
    assert float(metrics["gradient_norm"].total) > 0
    before, moved = by_path(state.model_state), by_path(after.model_state)
    assert not any(np.array_equal(leaf, before[path]) for path, leaf in moved.items())
