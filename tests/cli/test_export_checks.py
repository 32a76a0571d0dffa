"""What an export is compared with and refused for, on a network of two layers."""

import collections
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import models
from condconv_jax.cli.exporting import layer_outputs, make_program, make_reference, output_of
from condconv_jax.cli.network import BoundNetwork
from condconv_jax.interop.export import Reference, export_program, read_exported
from condconv_jax.interop.export.verify import TOLERANCE, largest_difference, make_pictures
from condconv_jax.nn import CondConv
from condconv_jax.tasks import Classification

SIZE = 8


class TwoLayers(nn.Module):
    """Two CondConv layers.

    Where it is frozen the second one's kernels are the first picture's; where it is single that
    picture is all that is left.
    """

    frozen: bool = False
    single: bool = False
    constant: bool = False
    method: str = "portable"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(CondConv(6, 3, 4, dtype=self.dtype, method=self.method, name="first")(x))
        routing = nn.sigmoid(nn.Dense(4, name="router")(x.mean((1, 2))))
        if self.frozen:
            routing = jnp.broadcast_to(routing[:1], routing.shape)
        if self.single:
            x, routing = x[:1], routing[:1]
        x = CondConv(5, 3, 4, dtype=self.dtype, method=self.method, name="second")(x, routing)
        return x.mean((1, 2)) * (0.0 if self.constant else 1.0)


def network(scale=1.0, **options):
    task = Classification(TwoLayers(**options), SIZE, (0.5,) * 3, (0.25,) * 3)
    params, _ = task.init(jax.random.key(0))
    params["second"]["kernel"] = params["second"]["kernel"] * scale
    return BoundNetwork("classification", task, params, {})


@pytest.fixture(scope="module")
def reference():
    return make_reference(network())


def export(program, reference, path):
    return export_program(make_program(program, {"a": [1]}), reference, "stablehlo", path)


def test_a_program_with_a_free_batch(reference, tmp_path):
    path = tmp_path / "new" / "net.stablehlo"
    written = export(network(), reference, path)
    assert written.difference.error <= written.tolerance == TOLERANCE
    exported = read_exported(path)
    assert exported.metadata == {"a": [1], "input_name": "images"}
    pictures = make_pictures(5, SIZE, seed=3)
    wanted = reference.outputs(pictures)["logits"]
    for batch in (1, 3, 5):
        got = exported.run(pictures[:batch])["logits"]
        np.testing.assert_allclose(got, wanted[:batch], rtol=0, atol=1e-6 * np.abs(wanted).max())
    assert [path.name for path in path.parent.iterdir()] == ["net.stablehlo"]


@pytest.mark.parametrize("options", [{"frozen": True}, {"scale": 1.001}])
def test_a_wrong_layer_is_named_and_nothing_is_written(options, reference, tmp_path):
    path = tmp_path / "net.stablehlo"
    path.write_text("of before")
    words = "differs from the network, .* the first layer to differ is second: .*; nothing was"
    with pytest.raises(ValueError, match=words):
        export(network(**options), reference, path)
    assert path.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_layer_that_cannot_be_written_is_named(reference, tmp_path):
    # By vmap the batch becomes a number of groups, which has to be known.
    with pytest.raises(ValueError, match="layer first cannot be written as stablehlo: "):
        export(network(method="reference"), reference, tmp_path / "net.stablehlo")
    assert not list(tmp_path.iterdir())


def test_a_layer_that_gives_another_batch_is_named(reference, tmp_path):
    words = r"layer second cannot be run as stablehlo: ValueError: verify: 'logits' is \(1, 5\)"
    with pytest.raises(ValueError, match=words):
        export(network(single=True), reference, tmp_path / "net.stablehlo")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # a whole network, layer by layer
def test_a_layer_whose_batch_norm_was_folded_is_named(tmp_path):
    model = models.create("mobilenet_v1", 5, width=0.125, num_experts=2)
    task = Classification(model, 32, (0.5,) * 3, (0.25,) * 3)
    params, state = jax.jit(task.init)(jax.random.key(0))
    # Statistics that folding changes a kernel by.
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: leaf * rng.uniform(0.5, 1.5, leaf.shape), state)
    whole = BoundNetwork("classification", task, params, state)
    folded = whole.folded()
    wrong = jax.tree.map(lambda leaf: leaf, folded.params)
    wrong["layer_9"]["pointwise"]["kernel"] *= 1.1
    program = dataclasses.replace(folded, params=wrong).with_method("portable")
    reference = make_reference(whole, layers_of=folded)
    with pytest.raises(ValueError, match="the first layer to differ is layer_9/pointwise: rel"):
        export(program, reference, tmp_path / "net.stablehlo")


def test_a_network_less_exact_than_the_tolerance_is_given_twice_its_rounding(tmp_path, reference):
    inexact = dataclasses.replace(reference, rounding=lambda: 0.0003)
    written = export(network(scale=1.0003), inexact, tmp_path / "net.stablehlo")
    assert written.difference.error > TOLERANCE
    assert written.tolerance == 0.0006
    # But not as much as another picture's kernels may differ by.
    useless = dataclasses.replace(reference, rounding=lambda: 0.1)
    for other in (inexact, useless):
        with pytest.raises(ValueError, match="differs from the network"):
            export(network(scale=1.01), other, tmp_path / "net.stablehlo")


def test_rounding_is_that_of_float32(reference):
    # Some hundred products, each with a unit roundoff of 6e-8.
    assert 1e-9 < reference.rounding() < 2e-6


def test_pictures_that_tell_nothing_are_no_check(tmp_path):
    constant = network(constant=True)
    with pytest.raises(ValueError, match="the same for all pictures"):
        export(constant, make_reference(constant), tmp_path / "net.stablehlo")


def test_largest_difference_by_hand():
    pictures = make_pictures(7, SIZE)
    wanted = {"y": np.arange(14.0).reshape(7, 2) - 10}

    def run(images):
        got = wanted["y"][: len(images)].copy()
        if len(images) == 2:
            got[1, 0] += 0.5
        return {"y": got}

    found = largest_difference(run, wanted, pictures)
    # The largest of the two pictures' four values is -10.
    assert (found.output, found.batch, found.error) == ("y", 2, 0.05)
    nan = lambda images: {"y": np.full((len(images), 2), np.nan)}
    assert np.isnan(largest_difference(nan, wanted, pictures).error)
    with pytest.raises(ValueError, match=r"'y' is \(1, 3\) at batch 1, wants \(1, 2\)"):
        largest_difference(lambda images: {"y": np.zeros((len(images), 3))}, wanted, pictures)


def test_pictures_differ_in_what_routes_them():
    pictures = make_pictures(7, 32)
    assert pictures.dtype == np.uint8
    assert pictures.shape == (7, 32, 32, 3)
    means = pictures.mean(axis=(1, 2))
    gaps = np.abs(means[:, None] - means[None]).max(axis=2)
    assert gaps[~np.eye(7, dtype=bool)].min() > 5
    np.testing.assert_array_equal(pictures[:3], make_pictures(3, 32))


def test_layers_are_in_the_order_of_the_computation():
    layers = layer_outputs(network(), jnp.asarray(make_pictures(2, SIZE)))
    assert isinstance(layers, collections.OrderedDict)
    assert list(layers) == ["first/router", "first", "router", "second"]
    second = output_of(network(), jnp.asarray(make_pictures(2, SIZE)), "second")
    np.testing.assert_array_equal(second, layers["second"])
    with pytest.raises(ValueError, match="no layer 'third'"):
        output_of(network(), jnp.asarray(make_pictures(2, SIZE)), "third")


def test_reference_is_what_it_says(reference):
    assert isinstance(reference, Reference)
    pictures = make_pictures(2, SIZE)
    np.testing.assert_allclose(
        reference.layers(pictures)["second"].mean((1, 2)),
        reference.outputs(pictures)["logits"],
        rtol=1e-5,
    )
