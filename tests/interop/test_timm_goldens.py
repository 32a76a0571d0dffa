"""timm's own outputs, without timm; `make_timm_goldens.py` says where they come from."""

import functools
import json

import jax
import numpy as np
import pytest
from make_timm_goldens import CLASSES, FILE, IMAGES, NAMES, digest, images, uniform, weights

from condconv_jax.interop import from_timm, timm_networks, to_timm

GOLDENS = json.loads(FILE.read_text())["networks"]
FAST = ("tf_efficientnet_cc_b0_4e", "mobilenetv2_100", "resnet50")
# Float64 rounds in the 16th digit, and 50 layers take four more: the goldens' images 1e-12 off
# change them by at most 1e-12.
TOLERANCE = 1e-9


def every_network(names=NAMES):
    return [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name)
        for name in names
    ]


@functools.cache
def network(name):
    """Ours, its variables' shapes, and the arrays that it gives timm when all of them are 0."""
    model = timm_networks.make(name, num_classes=CLASSES)
    variables = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(IMAGES, np.float32)
    )
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables)
    state = to_timm(name, model, zeros)
    return model, variables, {key: (array.shape, array.dtype.name) for key, array in state.items()}


@functools.cache
def outputs(name):
    """Logits, and the routing weights of each convolution by the block's name in timm."""
    model, variables, layout = network(name)
    shapes = {key: shape for key, (shape, _) in layout.items()}
    state = weights(shapes, GOLDENS[name]["spread"])
    with jax.enable_x64(True):
        model = model.clone(dtype="float64")
        doubles = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, "float64"), variables)
        apply = jax.jit(functools.partial(model.apply, mutable=["routing"]))
        logits, sown = apply(from_timm(state, model, doubles), images())
    layers = {
        f"layer_{n}": f"blocks.{stage}.{index}"
        for stage, group in enumerate(model.layout().groups)
        for index, n in enumerate(group)
    }
    routing = {
        layers[layer]: jax.tree.leaves(row) for layer, row in sown.get("routing", {}).items()
    }
    return np.asarray(logits), routing


def assert_near(got, want):
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * np.abs(want).max())


@pytest.mark.parametrize("name", NAMES)
def test_keys_shapes_and_dtypes_are_those_of_timm(name):
    assert digest(network(name)[2]) == GOLDENS[name]["layout"]


@pytest.mark.parametrize("name", every_network())
def test_logits_are_those_of_timm(name):
    want = np.array(GOLDENS[name]["logits"])
    assert want.shape == (IMAGES[0], CLASSES)
    assert_near(outputs(name)[0], want)


@pytest.mark.parametrize("name", every_network([name for name in NAMES if "_cc_" in name]))
def test_routing_is_that_of_timm_in_every_convolution(name):
    want, got = GOLDENS[name]["routing"], outputs(name)[1]
    assert len(want) == 8
    assert got.keys() == want.keys()
    for block, convolutions in got.items():
        assert len(convolutions) == 3
        for routing in convolutions:
            assert_near(routing, np.array(want[block]))


def test_the_weights_are_those_that_the_goldens_were_written_with():
    # As NumPy 2.4.6 drew them; PCG64's bits are not to change (NEP 19).
    written = [-0.0183220630128123, -1.4991307164868883, -0.42002505050942884]
    np.testing.assert_array_equal(uniform("bn1.bias", (3,)), written)
    many = uniform("conv_stem.weight", (32, 3, 3, 3))
    assert abs(many.mean()) < 0.1
    assert abs(many.var() - 1) < 0.1
