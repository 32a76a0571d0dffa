"""What stands in the conditional layers of a network: CondConv or one of its relatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conditional_networks import EXPERTS, KEY, NETWORKS, SIZE, Conv, small_network
from small_networks import by_path, draw

from condconv_jax import analysis, models
from condconv_jax.models import RoutingOptions
from condconv_jax.models.layers import COND_LAYERS
from condconv_jax.nn import variable_shapes

KINDS = sorted(COND_LAYERS)
RELATIVES = [kind for kind in KINDS if kind != "condconv"]


@functools.cache
def shapes(model):
    params = variable_shapes(model, SIZE)["params"]
    return {path: leaf.shape for path, leaf in by_path(params).items()}


def branches(conv):
    """Kernels of the parallel ones and their pixels on a side."""
    kh, _, c, f = conv.kernel
    before, after = conv.pixels
    if conv.depthwise:
        # Half of the channels each for 3x3 and 5x5; no kernel here is larger.
        assert kh <= 5
        return {
            "branch_3x3": ((3, 3, 1, f - f // 2), after),
            "branch_5x5": ((5, 5, 1, f // 2), after),
        }
    three, five = 3 * f // 8, f // 16
    rest = f - f // 4 - 2 * (f // 8)
    return {
        "branch_1x1": ((1, 1, c, f // 4), after),
        "reduce_3x3": ((1, 1, c, three), before),
        "branch_3x3": ((3, 3, three, rest), after),
        "reduce_5x5": ((1, 1, c, five), before),
        "branch_5x5": ((5, 5, five, f // 8), after),
        "branch_pool": ((1, 1, c, f // 8), after),
    }


def attentions(conv):
    """Of ODConv: sizes by name; not to the filters where they are the channels, nor to one tap."""
    kh, kw, _, f = conv.kernel
    sizes = {"channel": conv.channels, "filter": f, "spatial": kh * kw, "expert": EXPERTS}
    if conv.depthwise:
        del sizes["filter"]
    if kh * kw == 1:
        del sizes["spatial"]
    return sizes


def parameters(kind, conv):
    """What the convolution's module holds, by hand."""
    kh, kw = conv.kernel[:2]
    c = conv.channels
    if kind == "condconv":
        return {"kernel": (EXPERTS, *conv.kernel)}
    if kind == "dynamic":
        hidden = round(c / 4)
        return {
            "kernel": (EXPERTS, *conv.kernel),
            "router/hidden/kernel": (c, hidden),
            "router/hidden/bias": (hidden,),
            "router/kernel": (hidden, EXPERTS),
            "router/bias": (EXPERTS,),
        }
    if kind == "odconv":
        # c / 16 is less than the least width, 16, in all of these.
        found = {
            "kernel": (EXPERTS, *conv.kernel),
            "router/reduce/kernel": (c, 16),
            "router/norm/scale": (16,),
            "router/norm/bias": (16,),
        }
        for name, size in attentions(conv).items():
            found |= {f"router/{name}/kernel": (16, size), f"router/{name}/bias": (size,)}
        return found
    if kind == "dynamic_filter":
        return {
            "kernel": (EXPERTS + 1, *conv.kernel),
            "router/kernel": (c, EXPERTS),
            "router/bias": (EXPERTS,),
        }
    if kind == "deformable":
        moves = 2 * kh * kw
        return {
            "kernel": conv.kernel,
            "offset/kernel": (kh, kw, c, moves),
            "offset/bias": (moves,),
        }
    return {f"{name}/kernel": shape for name, (shape, _) in branches(conv).items()}


def madds(kind, conv):
    """(of products with activations, of mixing, of routing) of one image, by hand."""
    kh, kw, c_in, f = conv.kernel
    weights, c, positions = kh * kw * c_in * f, conv.channels, conv.pixels[1] ** 2
    if kind == "condconv":
        return positions * weights, EXPERTS * weights, 0
    if kind == "dynamic":
        hidden = round(c / 4)
        return positions * weights, EXPERTS * weights, c * hidden + hidden * EXPERTS
    if kind == "odconv":
        routing = 16 * (c + sum(attentions(conv).values()))
        return positions * weights, EXPERTS * weights, routing
    if kind == "dynamic_filter":
        # The bias of the layer that makes the kernels is one more expert.
        return positions * weights, (EXPERTS + 1) * weights, c * EXPERTS
    if kind == "deformable":
        return positions * (weights + kh * kw * c * 2 * kh * kw), 0, 0
    products = (pixels**2 * np.prod(shape) for shape, pixels in branches(conv).values())
    return sum(map(int, products)), 0, 0


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_conditional_layers_are_swapped(name, kind):
    _, convs, routers = NETWORKS[name]
    want = dict(shapes(small_network(name, num_experts=0)))
    for path, conv in convs.items():
        assert want.pop(f"{path}/kernel") == conv.kernel  # of the static network, by the way
        want |= {f"{path}/{leaf}": shape for leaf, shape in parameters(kind, conv).items()}
    if kind == "condconv":
        for layer, channels in routers.items():
            want |= {
                f"router_{layer}/kernel": (channels, EXPERTS),
                f"router_{layer}/bias": (EXPERTS,),
            }
    assert shapes(small_network(name, kind)) == want


@functools.cache
def costs(model):
    return analysis.layer_costs(model, SIZE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_madds_of_each_layer_by_hand(name, kind):
    for path, conv in NETWORKS[name][1].items():
        own = [
            cost
            for cost in costs(small_network(name, kind))
            if cost.name == path or cost.name.startswith(f"{path}/")
        ]
        got = tuple(sum(getattr(c, part) for c in own) for part in ("conv", "mixing", "routing"))
        assert got == madds(kind, conv), path


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_madds_of_the_network_by_hand(name, kind):
    _, convs, routers = NETWORKS[name]
    want = sum(cost.total for cost in costs(small_network(name, num_experts=0)))
    for conv in convs.values():
        want += sum(madds(kind, conv)) - conv.pixels[1] ** 2 * int(np.prod(conv.kernel))
    if kind == "condconv":
        want += sum(channels * EXPERTS for channels in routers.values())
    assert sum(cost.total for cost in costs(small_network(name, kind))) == want
    if kind == "odconv":
        assert analysis.count_madds(small_network(name, kind), SIZE) == want


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", RELATIVES)
def test_the_classifier_of_relatives_is_static(name, kind):
    model = small_network(name, kind, cond_classifier=True)
    features = NETWORKS[name][1]
    assert len(shapes(model)["classifier/kernel"]) == 2
    assert not any(path.startswith("router_") for path in shapes(model))
    assert any(path.startswith(next(iter(features))) for path in shapes(model))


@pytest.mark.parametrize("kind", KINDS)
def test_without_experts_only_those_that_have_none_are_left(kind):
    static = shapes(small_network("mobilenet_v1", num_experts=0))
    found = shapes(small_network("mobilenet_v1", kind, num_experts=0))
    assert (found == static) == (kind not in ("deformable", "parallel_kernels"))


@pytest.mark.parametrize("kind", RELATIVES)
def test_only_layer_places_them_too(kind):
    # The first convolution; 16 pixels of 3 channels, which no branch can halve often.
    found = shapes(small_network("mobilenet_v1", kind, only_layer=1, begin_layer=0, width=0.5))
    conv = Conv((3, 3, 3, 16), (16, 16))
    want = {f"layer_1/{leaf}": shape for leaf, shape in parameters(kind, conv).items()}
    assert {path: s for path, s in found.items() if path.startswith("layer_1/")} == want
    assert found["layer_13/depthwise/kernel"] == (3, 3, 1, 256)


def test_bfloat16_reaches_all_of_them():
    for kind in KINDS:
        model = small_network("mobilenet_v1", kind, dtype="bfloat16")
        images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
        run = functools.partial(model.init_with_output, capture_intermediates=True, mutable=True)
        logits, variables = jax.eval_shape(run, KEY, images)
        assert logits.dtype == jnp.float32
        outputs = variables["intermediates"]["layer_13"]
        for part in ("depthwise", "pointwise"):
            assert outputs[part]["__call__"][0].dtype == jnp.bfloat16, kind
        assert {a.dtype for a in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}


def new_gradients(name, kind):
    """Logits and the gradient by the parameters of the conditional layers, in a training step."""
    model = small_network(name, kind)
    variables, images = draw(model)
    params = dict(variables.pop("params"))
    conditional = {path.split("/")[0] for path in NETWORKS[name][1]}
    conditional |= {module for module in params if module.startswith("router_")}
    own = {module: params.pop(module) for module in conditional}

    @jax.jit
    def run(own, params, variables, images):
        def loss(own):
            logits, _ = model.apply(
                {"params": params | own, **variables},
                images,
                train=True,
                mutable=[*variables],
                rngs={"dropout": KEY},
            )
            return (jnp.cos(jnp.arange(5.0))[None, :] * logits).sum(), logits

        gradient, logits = jax.grad(loss, has_aux=True)(own)
        return logits, gradient

    return run(own, params, variables, images[:, :8, :8])


# The blocks of the other networks go through the same function; the slow tests run them too.
RUNS = [
    pytest.param(name, kind, marks=() if name == "mobilenet_v1" else pytest.mark.slow)
    for name in NETWORKS
    for kind in KINDS
]


@pytest.mark.parametrize(("name", "kind"), RUNS)
def test_each_runs_and_is_trained(name, kind):
    logits, gradient = new_gradients(name, kind)
    assert np.isfinite(logits).all()
    assert np.std(logits, axis=0).min() > 0
    of = by_path(gradient)
    sizes = {path: float(jnp.abs(g).max()) for path, g in of.items()}
    assert all(np.isfinite(list(sizes.values())))
    # A constant added to what only the head convolution reads, which is static, is taken away by
    # the batch norm after it.
    hidden = {"layer_8/project_bn/bias"} if name == "efficientnet_b0" else set()
    assert {path for path, size in sizes.items() if size < 1e-6} <= hidden


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"initial_temperature": -1.0, "anneal_steps": 3},
            r"RoutingOptions: initial_temperature is -1.0, anneal_steps 3; pass 0 \(no annealing\)",
        ),
        ({"anneal_steps": -3}, "initial_temperature is 0.0, anneal_steps -3; pass 0"),
        (
            {"initial_temperature": 30.0},
            "initial_temperature is 30.0, anneal_steps 0; annealing needs both, none of it neither",
        ),
        ({"anneal_steps": 10}, "initial_temperature is 0.0, anneal_steps 10; annealing needs both"),
        ({"drop_rate": 1.0}, r"RoutingOptions: drop_rate is 1.0; pass 0 \(none\) to below 1"),
        ({"drop_rate": -0.5}, "drop_rate is -0.5"),
        ({"noise": "shakes"}, "RoutingOptions: unknown noise 'shakes'.*did you mean 'shake'"),
        (
            {"noise": "shake", "top_k": 1},
            "RoutingOptions: noise 'shake' mixes all experts; pass top_k=0, or noise 'drop'",
        ),
    ],
)
def test_routing_options_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        RoutingOptions(**options)


@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        ("resnet50", "dynamik", {}, "ResNet50: unknown cond_layer 'dynamik'.*mean 'dynamic'"),
        ("resnet50", "dynamic", {"padding": "VALID"}, "unknown padding 'VALID'; choose one of"),
        (
            "resnet50",
            "parallel_kernels",
            {"only_layer": 1},
            "ParallelKernels: kernel_size is 7x7, and the largest kernel of an Inception block 5x5",
        ),
        (
            "efficientnet_b0",
            "parallel_kernels",
            {"method": "spatiel"},
            "unknown method 'spatiel'.*did you mean 'spatial'",
        ),
    ],
)
def test_networks_refuse(name, kind, options, message):
    with pytest.raises(ValueError, match=message):
        shapes(small_network(name, kind, **options))


@pytest.mark.parametrize("placement", [{"only_layer": 15}, {"begin_layer": 15}])
def test_no_relative_replaces_the_classifier_alone(placement):
    model = models.create("mobilenet_v1", num_experts=8, cond_layer="dynamic", **placement)
    with pytest.raises(ValueError, match="the classifier alone is to be conditional, which only"):
        model.conditional_layers()
    both = models.create("mobilenet_v1", num_experts=8, cond_layer="odconv", begin_layer=14)
    assert both.conditional_layers() == {14}


@pytest.mark.parametrize(
    ("cond_layer", "least"),
    [("condconv", 2), ("dynamic", 2), ("odconv", 1), ("dynamic_filter", 1), ("deformable", 0)],
)
def test_how_many_experts_make_a_layer_conditional(cond_layer, least):
    for experts in range(3):
        model = models.create("mobilenet_v1", cond_layer=cond_layer, num_experts=experts)
        assert bool(model.conditional_layers()) == (experts >= least)


@pytest.mark.parametrize(
    ("options", "words", "kernels"),
    [
        ({}, "static", 0),
        ({"num_experts": 1}, "static", 0),
        ({"num_experts": 8}, "8 experts", 8),
        ({"num_experts": 4, "cond_layer": "dynamic"}, "dynamic, 4 experts", 4),
        ({"num_experts": 4, "cond_layer": "dynamic_filter"}, "dynamic_filter, 4 hidden units", 5),
        ({"num_experts": 8, "cond_layer": "deformable"}, "deformable", 0),
        ({"num_experts": 0, "cond_layer": "odconv"}, "static", 0),
    ],
)
def test_a_network_in_words(options, words, kernels):
    options = {**models.default_options("mobilenet_v1"), **options}
    assert models.describe(options) == words
    assert models.mixed_kernels(options) == kernels
    assert models.describe(models.default_options("msdnet")) == "static"
