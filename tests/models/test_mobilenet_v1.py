import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small_networks import IMAGES, assert_close, draw, network, shapes

from condconv_jax import models, ops
from condconv_jax.models import RoutingOptions


def conditional(found):
    """The layers whose kernels have experts; both convolutions of a block, or neither."""
    layers = set()
    if len(found["layer_1/kernel"]) == 5:
        layers.add(1)
    for layer in range(2, 15):
        pair = {len(found[f"layer_{layer}/{part}/kernel"]) for part in ("depthwise", "pointwise")}
        assert len(pair) == 1
        if pair == {5}:
            layers.add(layer)
    if len(found["classifier/kernel"]) == 3:
        layers.add(15)
    return layers


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, range(7, 16)),
        ({"begin_layer": 1}, range(1, 16)),
        ({"begin_layer": 2}, range(2, 16)),
        ({"begin_layer": 14}, [14, 15]),
        ({"begin_layer": 15}, [15]),
        ({"cond_classifier": False}, range(7, 15)),
        ({"only_layer": 1}, [1]),
        ({"only_layer": 7}, [7]),
        ({"cond_groups": (1, 4)}, [2, *range(7, 13), 15]),
        ({"cond_groups": (5,), "cond_classifier": False}, [13, 14]),
        ({"only_layer": 15, "cond_classifier": False}, [15]),
        ({"only_layer": 15}, [15]),
        ({"num_experts": 1}, []),
        ({"num_experts": 0, "only_layer": 7}, []),
    ],
)
def test_which_layers_are_conditional(options, want):
    options = {"num_experts": 2, "width": 0.25} | options
    found = shapes(models.create("mobilenet_v1", **options))
    assert conditional(found) == set(want)
    routers = {name for name in found if name.startswith("router_")}
    assert routers == {f"router_{n}/{part}" for n in want for part in ("kernel", "bias")}


def test_shapes_of_the_papers_network():
    found = shapes(models.create("mobilenet_v1", num_classes=1001, num_experts=8, begin_layer=13))
    assert found["layer_1/kernel"] == (3, 3, 3, 32)
    channels = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    for layer in range(2, 15):
        c, f = channels[layer - 2 : layer]
        experts = (8,) if layer >= 13 else ()
        assert found[f"layer_{layer}/depthwise/kernel"] == (*experts, 3, 3, 1, c)
        assert found[f"layer_{layer}/pointwise/kernel"] == (*experts, 1, 1, c, f)
        assert found[f"layer_{layer}/depthwise_bn/scale"] == (c,)
        assert found[f"layer_{layer}/pointwise_bn/scale"] == (f,)
    assert found["classifier/kernel"] == (8, 1024, 1001)
    assert found["classifier/bias"] == (8, 1001)
    # Convolutions have no bias where batch norm follows.
    assert [name for name in found if name.endswith("bias") and "_bn" not in name] == [
        "classifier/bias",
        *(f"router_{n}/bias" for n in (13, 14, 15)),
    ]


# Channels that the router of layers 7 to 15 pools at width 1/4.
POOLED = {7: 64, **dict.fromkeys(range(8, 14), 128), 14: 256, 15: 256}


@pytest.mark.parametrize(
    ("routing", "want"),
    [
        ({}, POOLED),
        ({"sharing": "single"}, {7: 64}),
        ({"sharing": "partial"}, {n: POOLED[n] for n in (7, 9, 11, 13, 15)}),
        # All but the first see the previous layer's six weights too.
        ({"hierarchical": True}, {n: c + 6 * (n > 7) for n, c in POOLED.items()}),
        (
            {"hierarchical": True, "sharing": "partial"},
            {n: POOLED[n] + 6 * (n > 7) for n in (7, 9, 11, 13, 15)},
        ),
    ],
)
def test_routers(routing, want):
    found = shapes(models.create("mobilenet_v1", width=0.25, num_experts=6, routing=routing))
    assert {name: found[name] for name in found if re.match(r"router_\d+/kernel", name)} == {
        f"router_{n}/kernel": (c, 6) for n, c in want.items()
    }


@pytest.mark.parametrize(("hidden", "ratio"), [("small", 1 / 8), ("medium", 1), ("large", 8)])
def test_hidden_layers_of_routers(hidden, ratio):
    routing = {"hidden": hidden}
    found = shapes(models.create("mobilenet_v1", width=0.25, num_experts=6, routing=routing))
    for layer, c in POOLED.items():
        assert found[f"router_{layer}/hidden/kernel"] == (c, c * ratio)
        assert found[f"router_{layer}/kernel"] == (c * ratio, 6)


def test_squeeze_excite_follows_every_layer():
    found = shapes(models.create("mobilenet_v1", width=0.25, squeeze_excite=0.25))
    reductions = {name: s for name, s in found.items() if name.endswith("reduce/kernel")}
    names = ["layer_1_se", *(f"layer_{n}/se" for n in range(2, 15))]
    channels = [8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    assert reductions == {
        f"{name}/reduce/kernel": (c, c // 4) for name, c in zip(names, channels, strict=True)
    }
    assert not any("reduce" in name for name in shapes(network()))


@pytest.mark.parametrize(
    ("size", "early", "want"), [(224, (2, 2, 2), 7), (32, (1, 1, 2), 4), (28, (1, 2, 1), 4)]
)
def test_strides_and_outputs(size, early, want):
    model = models.create("mobilenet_v1", num_classes=7, width=0.25, early_strides=early)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, capture_intermediates=True, mutable=["intermediates"]),
        variables,
        images,
    )
    (last,) = state["intermediates"]["layer_14"]["__call__"]
    assert last.shape == (2, want, want, 256)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    after = dict(zip((1, 3, 5), np.cumprod(early), strict=True))
    for layer, stride in after.items():
        name = "layer_1" if layer == 1 else f"layer_{layer}"
        (out,) = state["intermediates"][name]["__call__"]
        assert out.shape[1] == -(-size // stride)


def test_one_expert_is_the_static_network():
    static, one = network(num_experts=0), network(num_experts=1)
    assert shapes(static) == shapes(one)
    variables, images = draw(static)
    np.testing.assert_array_equal(
        jax.jit(one.apply)(variables, images), jax.jit(static.apply)(variables, images)
    )


def test_methods_agree_on_the_whole_network(float64):
    auto = network(dtype=float64)
    variables, images = draw(auto)
    want = jax.jit(auto.apply)(variables, images)
    assert np.std(want, axis=0).min() > 0.01  # the images do not all look alike to it
    for method in ("reference", "mixture", "spatial"):
        got = jax.jit(auto.clone(method=method).apply)(variables, images)
        assert_close(got, want, 1e-6)


@pytest.mark.slow  # the whole of what tests/ops compare method by method
def test_gradients_of_auto_and_mixture_agree(float64):
    variables, images = draw(network())
    statistics = {"batch_stats": variables["batch_stats"]}

    def gradient(method):
        model = network(dtype=float64, method=method)
        loss = lambda params: (model.apply({"params": params, **statistics}, images) ** 2).sum()
        return jax.jit(jax.grad(loss))(variables["params"])

    want = gradient("mixture")
    assert min(np.abs(g).max() for g in jax.tree.leaves(want)) > 0
    assert_close(gradient("auto"), want, 1e-6)


@pytest.mark.parametrize("experts", [0, 3])
def test_on_a_mesh_it_is_the_same_and_gathers_nothing(float64, experts):
    model = network(num_experts=experts, dtype=float64)
    variables, images = draw(model)
    want = jax.jit(model.apply)(variables, images)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        split, whole = (NamedSharding(mesh, PartitionSpec(*names)) for names in (("data",), ()))
        placed = jax.device_put(variables, whole), jax.device_put(images, split)
        program = jax.jit(model.apply).lower(*placed).compile()
        assert_close(program(*placed), want, 1e-6)
        text = program.as_text()
    for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce", "reduce-scatter"):
        assert not re.search(rf"\b{name}(-start)?\(", text), name


def test_routing_is_that_of_the_blocks_input():
    model = network(routing=RoutingOptions(activation="softmax", temperature=2.0))
    variables, images = draw(model)
    apply = jax.jit(
        lambda v, x: model.apply(
            v, x, capture_intermediates=True, mutable=["routing", "intermediates"]
        )
    )
    _, state = apply(variables, images)
    weights, outputs = state["routing"], state["intermediates"]
    for layer in (5, 14):
        (x,) = outputs[f"layer_{layer - 1}"]["__call__"]
        router = variables["params"][f"router_{layer}"]
        want = ops.route(
            x.mean(axis=(1, 2)),
            router["kernel"],
            router["bias"],
            activation="softmax",
            temperature=2.0,
        )
        for part in ("depthwise", "pointwise"):
            got = weights[f"layer_{layer}"][part]["weights"]
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert set(weights) == {*(f"layer_{n}" for n in range(4, 15)), "classifier"}


@pytest.mark.parametrize(
    ("routing", "groups"),
    [
        ({"sharing": "single"}, [range(4, 16)]),
        ({"sharing": "partial", "hierarchical": True, "top_k": 2}, [(4, 5), (6, 7), (14, 15)]),
    ],
)
def test_shared_routing_is_the_same_array(routing, groups):
    model = network(routing=RoutingOptions(**routing))
    variables, images = draw(model)
    apply = jax.jit(lambda v, x: model.apply(v, x, mutable=["routing"]))
    weights = apply(variables, images)[1]["routing"]
    of = lambda n: np.asarray(jax.tree.leaves(weights[f"layer_{n}" if n < 15 else "classifier"])[0])
    for first, *others in groups:
        for other in others:
            np.testing.assert_array_equal(of(first), of(other))
    if "top_k" in routing:
        assert all(((of(n) != 0).sum(axis=1) == 2).all() for n in range(4, 16))
        assert not np.allclose(of(5), of(6))


def test_training_updates_statistics_and_drops():
    model = network(num_experts=0, dropout=0.5, batch_norm_momentum=0.75)
    variables, images = draw(model)
    train = jax.jit(
        lambda key: model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
    )
    one, state = train(jax.random.key(0))
    other, _ = train(jax.random.key(1))
    assert not np.allclose(one, other)
    stem = ops.conv(images, variables["params"]["layer_1"]["kernel"])
    before = variables["batch_stats"]["layer_1_bn"]["mean"]
    want = 0.75 * before + 0.25 * stem.mean(axis=(0, 1, 2))
    got = state["batch_stats"]["layer_1_bn"]["mean"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_bfloat16_stores_float32_and_returns_float32():
    model = network(dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, mutable=["routing", "intermediates"],
                                 capture_intermediates=True), variables, IMAGES
    )  # fmt: skip
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state["routing"])} == {jnp.dtype("float32")}
    outputs = [state["intermediates"][f"layer_{n}"]["__call__"][0].dtype for n in range(1, 15)]
    assert set(outputs) == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin_layer": -1}, r"MobileNetV1: begin_layer is -1; pass 1 to 15 \(1 is the first"),
        ({"begin_layer": 16}, "begin_layer is 16; pass 1 to 15"),
        ({"only_layer": -1}, "MobileNetV1: only_layer is -1; pass 1 to 15"),
        ({"cond_groups": (2, 6)}, r"cond_groups is \(2, 6\); pass block groups from 1 to 5"),
        ({"only_layer": 7, "begin_layer": 3}, "begin_layer 3 and only_layer 7 of .*; set one of"),
        (
            {"begin_layer": 15, "cond_classifier": False},
            "begin_layer 15 leaves no CondConv layer; lower it, or set cond_classifier to True",
        ),
        ({"cond_layer": "dinamic"}, "MobileNetV1: unknown cond_layer 'dinamic'.*mean 'dynamic'"),
        ({"padding": "VALID"}, "unknown padding 'VALID'; choose one of 'SAME', 'SYMMETRIC'"),
        ({"only_layer": 16}, "only_layer is 16"),
        ({"width": 0}, "MobileNetV1: width is 0; pass a positive number"),
        ({"squeeze_excite": 1.5}, r"MobileNetV1: squeeze_excite is 1.5; pass 0 \(none\) to 1"),
        ({"squeeze_excite": -0.1}, "squeeze_excite is -0.1"),
        ({"early_strides": (2, 2)}, r"early_strides is \(2, 2\); pass a value like \(2, 2, 2\)"),
        ({"early_strides": (0, 2, 2)}, r"early_strides is \(0, 2, 2\); pass .* at least 1 each"),
        ({"dropout": 1.0}, r"dropout is 1.0; pass 0 \(none\) to below 1"),
        ({"num_experts": -4}, "MobileNetV1: num_experts is -4; pass 0 or more"),
        ({"method": "deptwise"}, "unknown method 'deptwise'.*did you mean 'depthwise'"),
        ({"method": "deptwise", "num_experts": 0}, "unknown method 'deptwise'"),
        ({"routing": RoutingOptions(top_k=9)}, "k is 9; pass 1 to 3"),
    ],
)
def test_refusals(options, message):
    options = {"num_experts": 3, "width": 1 / 16} | options
    with pytest.raises(ValueError, match=message):
        shapes(models.create("mobilenet_v1", **options))


def test_options_are_the_fields_of_the_network():
    fields = {f.name for f in dataclasses.fields(models.MODELS["mobilenet_v1"])}
    assert {"num_experts", "begin_layer", "cond_classifier", "routing", "squeeze_excite"} <= fields
    assert {"width", "dtype", "method"} <= fields
