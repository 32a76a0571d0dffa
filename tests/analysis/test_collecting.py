import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import models, runtime
from condconv_jax.analysis import collect, layer_costs
from condconv_jax.analysis.collecting import by_module, layer_name, routing_layers
from condconv_jax.tasks import Classification

SIZE = 16


def make_task(**options):
    model = models.create(
        "mobilenet_v1", 10, width=0.1, num_experts=3, early_strides=(2, 2, 2), **options
    )
    return Classification(model, SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def order(task):
    return [cost.name for cost in layer_costs(task.model, SIZE)]


def layers_of(**options):
    task = make_task(**options)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.uint8)
    return routing_layers(task.routing, (*variables, images), order(task))


def test_layers_come_in_the_order_of_the_forward_pass():
    layers = layers_of(begin_layer=7)
    assert list(layers) == [*(f"layer_{i}" for i in range(7, 15)), "classifier"]
    assert layers["layer_10"] == ["layer_10/depthwise", "layer_10/pointwise"]
    assert layers["classifier"] == ["classifier"]


# With top_k each module keeps the largest of the weights by itself.
@pytest.mark.parametrize("top_k", [0, 2])
def test_layers_that_share_their_routing_are_one(top_k):
    single, partial = ({"sharing": sharing, "top_k": top_k} for sharing in ("single", "partial"))
    assert list(layers_of(begin_layer=12, routing=single)) == ["layer_12 to classifier"]
    assert list(layers_of(begin_layer=11, routing=partial)) == [
        "layer_11 to layer_12",
        "layer_13 to layer_14",
        "classifier",
    ]


def test_layers_whose_weights_happen_to_agree_stay_two():
    def routing(x):
        same = {"weights": jnp.maximum(x, 0)}
        other, again = {"weights": jnp.maximum(-x, 0)}, {"weights": jnp.maximum(x, 0)}
        return {"layer_2": same, "layer_10": other, "layer_11": same, "layer_12": again}

    names = ["layer_2", "layer_10", "layer_11", "layer_12"]
    layers = routing_layers(routing, [jnp.zeros((2, 3))], names)
    assert list(layers) == ["layer_2 to layer_12", "layer_10"]


def test_what_equations_are_told_keeps_layers_apart():
    def routing(x):
        three = np.float32(3)
        values = (
            x * 2,
            x * 2,
            x * three,
            x.sum(0),
            x.sum(1),
            x + np.arange(9.0).reshape(3, 3),
            x + np.ones((3, 3)),
        )
        return {f"layer_{i}": {"weights": value} for i, value in enumerate(values)}

    layers = routing_layers(routing, [jnp.zeros((3, 3))], [])
    assert list(layers) == ["layer_0 to layer_1", *(f"layer_{i}" for i in range(2, 7))]


@pytest.mark.parametrize(
    ("modules", "name"),
    [
        (["classifier"], "classifier"),
        (["layer_7/depthwise", "layer_7/pointwise"], "layer_7"),
        (["stage_1/block_2/expand", "stage_1/block_2/project"], "stage_1/block_2"),
        (["layer_7/depthwise", "layer_8/pointwise"], "layer_7 to layer_8"),
    ],
)
def test_layers_are_named_after_what_their_modules_share(modules, name):
    assert layer_name(modules) == name


class Brightness:
    """A task whose layers route by the mean of the image, and that guesses by it."""

    image_size = 2

    def evaluate(self, params, model_state, batch):
        guesses = (batch["image"].mean(axis=(1, 2, 3)) > params).astype(jnp.int32)
        right = runtime.sum_of(guesses == batch["label"], batch["mask"] > 0)
        return runtime.Evaluation({"top1": right}, {})

    def routing(self, params, model_state, images):
        weights = images.mean(axis=(1, 2, 3))[:, None] / jnp.array([[255.0, 510.0]])
        shared = {"weights": weights}
        last = {"weights": 1 - weights}
        return {"layer_10": {"a": shared, "b": shared}, "layer_9": last}


def test_a_pass_counts_each_image_once_whatever_the_batches():
    levels = np.array([10, 200, 30, 220, 50, 240, 70, 180, 90, 110, 255], np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1], np.int32)  # all right but 90 and 110
    images = np.zeros((16, 2, 2, 3), np.uint8) + np.pad(levels, (0, 5))[:, None, None, None]
    batches = [
        {
            "image": images[start : start + 8],
            "label": np.pad(labels, (0, 5))[start : start + 8],
            "mask": (np.arange(start, start + 8) < 11).astype(np.float32),
        }
        for start in (0, 8)
    ]
    order = ["layer_9", "layer_10/a", "layer_10/b"]
    mesh = runtime.make_mesh()
    found = collect(Brightness(), np.float32(128), {}, batches, mesh=mesh, module_order=order)
    assert (found.scores["top1"].total, found.scores["top1"].count) == (9, 11)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.places, np.arange(11))
    assert found.modules == {"layer_9": ["layer_9"], "layer_10": ["layer_10/a", "layer_10/b"]}
    assert list(found.routing) == ["layer_9", "layer_10"]
    expected = levels[:, None] / np.array([255.0, 510.0])
    np.testing.assert_allclose(found.routing["layer_10"], expected, rtol=1e-6)
    np.testing.assert_allclose(found.routing["layer_9"], 1 - expected, atol=1e-6)

    # A damaged image leaves a gap, and the places of those after it are theirs still.
    batches[0]["mask"][2] = 0
    found = collect(Brightness(), np.float32(128), {}, batches, mesh=mesh, module_order=order)
    np.testing.assert_array_equal(found.places, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10])

    with pytest.raises(ValueError, match="collect: the evaluation set has no images"):
        collect(Brightness(), np.float32(128), {}, [], mesh=mesh, module_order=order)


def test_modules_are_named_by_their_paths():
    sown = {"layer_7": {"depthwise": {"weights": 1}}, "classifier": {"weights": 2}}
    assert by_module(sown) == {"layer_7/depthwise": 1, "classifier": 2}
