import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import models, runtime
from condconv_jax.analysis import evaluate_without, evenly_spaced_batches, switch_off
from condconv_jax.nn import CondConv, compress_experts
from condconv_jax.tasks import Classification

SIZE = 16


def test_it_is_routing_weight_zero():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    routing = jax.random.uniform(jax.random.key(1), (2, 4))
    layer = CondConv(6, 3, 4, bias_init=jax.nn.initializers.normal(1.0))
    params = layer.init(jax.random.key(2), x, routing)["params"]
    without = switch_off({"block": {"conv": params}}, ["block/conv"], 2)["block"]["conv"]
    np.testing.assert_array_equal(
        layer.apply({"params": without}, x, routing),
        layer.apply({"params": params}, x, routing.at[:, 2].set(0)),
    )


def make(name="mobilenet_v1", width=0.1, **options):
    model = models.create(name, 4, width=width, num_experts=3, **options)
    task = Classification(model, SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    params, model_state = jax.eval_shape(task.init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        # Compiling the first values of a network would take longer than all else here.
        values = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[-4:-1]))
        around = 1 if path[-1].key in ("scale", "var") else 0
        return (around + (0.2 if leaf.ndim == 1 else 1) * values).astype(leaf.dtype)

    return task, *jax.tree_util.tree_map_with_path(drawn, (params, model_state))


def test_only_that_expert_of_these_modules_changes():
    _, params, _ = make(begin_layer=13)
    without = switch_off(params, ["layer_14/depthwise", "layer_14/pointwise"], 1)
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(without), strict=True
        )
        if not np.array_equal(a, b)
    }
    assert changed == {"layer_14/depthwise/kernel", "layer_14/pointwise/kernel"}
    kernel, old = without["layer_14"]["pointwise"]["kernel"], params["layer_14"]["pointwise"]
    assert not np.any(kernel[1])
    np.testing.assert_array_equal(kernel[jnp.array([0, 2])], old["kernel"][jnp.array([0, 2])])


def test_accuracies_are_those_of_the_network_without_the_expert():
    task, params, model_state = make("resnet_cifar", width=0.25, blocks=1, only_layer=5)
    # A colour each: of pictures of noise a network of drawn weights thinks the same.
    colors = np.random.default_rng(0).integers(0, 256, (16, 1, 1, 3), np.uint8)
    batch = {
        "image": np.broadcast_to(colors, (16, SIZE, SIZE, 3)),
        "mask": (np.arange(16) < 13).astype(np.float32),
    }
    # What the network says without expert 2 is called the truth.
    truth, predict = switch_off(params, ["classifier"], 2), jax.jit(task.predict)
    logits = predict(truth, model_state, batch["image"])
    batch["label"] = np.asarray(logits.argmax(axis=1), np.int32)
    found = evaluate_without(
        task,
        params,
        model_state,
        [batch],
        layer="classifier",
        modules=["classifier"],
        mesh=runtime.make_mesh(),
    )
    assert (found.layer, found.images) == ("classifier", 13)
    assert found.without[2] == 1.0 > found.top1
    guesses = predict(params, model_state, batch["image"]).argmax(axis=1)
    assert found.top1 == pytest.approx(np.mean(guesses[:13] == batch["label"][:13]))
    np.testing.assert_allclose(found.drops, found.top1 - found.without)


def test_images_are_taken_evenly_and_filled_up():
    labels = np.arange(10)
    batches = list(
        evenly_spaced_batches(
            lambda row: np.full((1, 1, 3), row, np.uint8), labels, batch_size=4, limit=5
        )
    )
    assert [batch["image"].shape for batch in batches] == [(4, 1, 1, 3)] * 2
    kept = [batch["mask"] > 0 for batch in batches]
    assert np.concatenate([b["label"][k] for b, k in zip(batches, kept, strict=True)]).tolist() == [
        0, 2, 4, 6, 8,
    ]  # fmt: skip
    assert batches[1]["image"][kept[1], 0, 0, 0].tolist() == [8]
    every = evenly_spaced_batches(lambda row: np.zeros((1, 1, 3)), labels, batch_size=4, limit=99)
    assert sum(batch["mask"].sum() for batch in every) == 10


def test_layers_that_are_not_mixed_by_weights_are_refused():
    _, params, _ = make(begin_layer=14)
    with pytest.raises(ValueError, match="no module layer_14/gone; pass those of the layer"):
        switch_off(params, ["layer_14/gone"], 0)
    with pytest.raises(ValueError, match="layer_2/pointwise has no experts that its routing"):
        switch_off(params, ["layer_2/pointwise"], 0)
    with pytest.raises(ValueError, match="classifier has 3 experts; pass 0 to 2, not 3"):
        switch_off(params, ["classifier"], 3)
    with pytest.raises(ValueError, match="experts of classifier are quantised; pass the orig"):
        switch_off(compress_experts(params, "int8"), ["classifier"], 0)
    task, params, model_state = make(begin_layer=14)
    with pytest.raises(ValueError, match="evaluate_without: there are no images"):
        evaluate_without(
            task, params, model_state, [], layer="classifier", modules=["classifier"],
            mesh=runtime.make_mesh(),
        )  # fmt: skip
