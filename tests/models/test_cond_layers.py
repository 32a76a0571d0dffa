"""What stands in the conditional layers of a network, and what its layers have in common."""

import dataclasses
import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import draw

from condconv_jax import analysis, models, tasks
from condconv_jax.models import RoutingOptions
from condconv_jax.models.inverted_residual import InvertedResidual, Stage
from condconv_jax.models.layers import COND_LAYERS, PADDINGS, Layers
from condconv_jax.models.routing import current_temperature

KEY = jax.random.key(0)
EXPERTS = 3
SMALL = {"num_experts": EXPERTS, "early_strides": (1, 1, 1)}


@dataclasses.dataclass(frozen=True)
class Conv:
    """A conditional convolution: its kernel without experts, and pixels on a side, in and out."""

    kernel: tuple[int, int, int, int]
    pixels: tuple[int, int]
    depthwise: bool = False

    @property
    def channels(self):
        return self.kernel[3] if self.depthwise else self.kernel[2]


# Images of 16 pixels. Each network's conditional convolutions by hand, and the channels that the
# routers of its conditional layers pool.
NETWORKS = {
    # 1/16 of 512 and 1024 channels; layers 7 and 13 have a stride.
    "mobilenet_v1": (
        {"width": 1 / 16, "begin_layer": 13, "cond_classifier": False},
        {
            "layer_13/depthwise": Conv((3, 3, 1, 32), (8, 4), depthwise=True),
            "layer_13/pointwise": Conv((1, 1, 32, 64), (4, 4)),
            "layer_14/depthwise": Conv((3, 3, 1, 64), (4, 4), depthwise=True),
            "layer_14/pointwise": Conv((1, 1, 64, 64), (4, 4)),
        },
        {13: 32, 14: 64},
    ),
    # One block of each group. The seventh: 19 channels become 24, since 16 are below 90 %; 6 times
    # as many inside.
    "efficientnet_b0": (
        {"width": 0.1, "depth": 0.1, "cond_groups": (7,)},
        {
            "layer_8/expand": Conv((1, 1, 24, 144), (4, 4)),
            "layer_8/depthwise": Conv((3, 3, 1, 144), (4, 4), depthwise=True),
            "layer_8/project": Conv((1, 1, 144, 32), (4, 4)),
        },
        {8: 24},
    ),
    # A tenth of 4 * 256 channels in, of 512 inside, four times as many out.
    "resnet50": (
        {"width": 0.1, "depth": 0.1},
        {
            "layer_5/reduce": Conv((1, 1, 104, 51), (8, 8)),
            "layer_5/spatial": Conv((3, 3, 51, 51), (8, 4)),
            "layer_5/expand": Conv((1, 1, 51, 204), (4, 4)),
            "layer_5/projection": Conv((1, 1, 104, 204), (8, 4)),
        },
        {5: 104},
    ),
}
SIZE = 16
KINDS = sorted(COND_LAYERS)
RELATIVES = [kind for kind in KINDS if kind != "condconv"]


@functools.cache
def network(name, kind="condconv", **options):
    return models.create(
        name, num_classes=5, **SMALL | NETWORKS[name][0] | {"cond_layer": kind} | options
    )


def by_path(tree):
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}


@functools.cache
def shapes(model):
    images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
    params = jax.eval_shape(model.init, KEY, images)["params"]
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
    want = dict(shapes(network(name, num_experts=0)))
    for path, conv in convs.items():
        assert want.pop(f"{path}/kernel") == conv.kernel  # of the static network, by the way
        want |= {f"{path}/{leaf}": shape for leaf, shape in parameters(kind, conv).items()}
    if kind == "condconv":
        for layer, channels in routers.items():
            want |= {
                f"router_{layer}/kernel": (channels, EXPERTS),
                f"router_{layer}/bias": (EXPERTS,),
            }
    assert shapes(network(name, kind)) == want


@functools.cache
def costs(model):
    return analysis.layer_costs(model, SIZE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_madds_of_each_layer_by_hand(name, kind):
    for path, conv in NETWORKS[name][1].items():
        own = [
            cost
            for cost in costs(network(name, kind))
            if cost.name == path or cost.name.startswith(f"{path}/")
        ]
        got = tuple(sum(getattr(c, part) for c in own) for part in ("conv", "mixing", "routing"))
        assert got == madds(kind, conv), path


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_madds_of_the_network_by_hand(name, kind):
    _, convs, routers = NETWORKS[name]
    want = sum(cost.total for cost in costs(network(name, num_experts=0)))
    for conv in convs.values():
        want += sum(madds(kind, conv)) - conv.pixels[1] ** 2 * int(np.prod(conv.kernel))
    if kind == "condconv":
        want += sum(channels * EXPERTS for channels in routers.values())
    assert sum(cost.total for cost in costs(network(name, kind))) == want
    if kind == "odconv":
        assert analysis.count_madds(network(name, kind), SIZE) == want


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", RELATIVES)
def test_the_classifier_of_relatives_is_static(name, kind):
    model = network(name, kind, cond_classifier=True)
    features = NETWORKS[name][1]
    assert len(shapes(model)["classifier/kernel"]) == 2
    assert not any(path.startswith("router_") for path in shapes(model))
    assert any(path.startswith(next(iter(features))) for path in shapes(model))


@pytest.mark.parametrize("kind", KINDS)
def test_without_experts_only_those_that_have_none_are_left(kind):
    static = shapes(network("mobilenet_v1", num_experts=0))
    found = shapes(network("mobilenet_v1", kind, num_experts=0))
    assert (found == static) == (kind not in ("deformable", "parallel_kernels"))


@pytest.mark.parametrize("kind", RELATIVES)
def test_only_layer_places_them_too(kind):
    # The first convolution; 16 pixels of 3 channels, which no branch can halve often.
    found = shapes(network("mobilenet_v1", kind, only_layer=1, begin_layer=0, width=0.5))
    conv = Conv((3, 3, 3, 16), (16, 16))
    want = {f"layer_1/{leaf}": shape for leaf, shape in parameters(kind, conv).items()}
    assert {path: s for path, s in found.items() if path.startswith("layer_1/")} == want
    assert found["layer_13/depthwise/kernel"] == (3, 3, 1, 256)


def test_bfloat16_reaches_all_of_them():
    for kind in KINDS:
        model = network("mobilenet_v1", kind, dtype="bfloat16")
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
    model = network(name, kind)
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


# The temperature of training.


class Temperature(linen.Module):
    options: RoutingOptions

    @linen.compact
    def __call__(self, *, train):
        return jnp.asarray(current_temperature(self, self.options, train=train))


def test_temperature_follows_a_straight_line_and_then_stays():
    module = Temperature(RoutingOptions(temperature=2.0, initial_temperature=30, anneal_steps=4))
    variables = module.init(KEY, train=True)
    assert by_path(variables)["schedule/step"] == 0  # initialising is no step
    got = []
    for step in range(7):
        # Evaluation sees the temperature of the next step, and counts nothing.
        before, untouched = module.apply(variables, train=False, mutable=["schedule"])
        assert untouched["schedule"]["step"] == step
        now, variables = module.apply(variables, train=True, mutable=["schedule"])
        assert variables["schedule"]["step"] == step + 1
        assert now == before
        got.append(float(now))
    np.testing.assert_allclose(got, [30, 23, 16, 9, 2, 2, 2], rtol=1e-6)


def test_temperature_may_rise():
    options = RoutingOptions(temperature=3.0, initial_temperature=1.0, anneal_steps=2)
    module = Temperature(options)
    for step, want in enumerate((1, 2, 3, 3)):
        variables = {"schedule": {"step": jnp.int32(step)}}
        assert module.apply(variables, train=False) == want


def test_without_annealing_there_is_nothing_to_count():
    module = Temperature(RoutingOptions(temperature=3.0))
    assert module.init(KEY, train=True) == {}
    assert module.apply({}, train=True) == 3


ANNEALED = RoutingOptions(initial_temperature=30.0, anneal_steps=10)


@pytest.mark.parametrize("kind", ["condconv", "dynamic"])
def test_routing_weights_follow_the_temperature(kind):
    """Sigmoid: log(r / (1 - r)) is the logit over T; softmax: so are differences of log r."""
    model = network("mobilenet_v1", kind, routing=ANNEALED)
    variables, images = draw(model)
    assert variables["schedule"]["step"].shape == ()

    @jax.jit
    def weights(step):
        state = variables | {"schedule": {"step": step}}
        _, sown = model.apply(state, images[:, :8, :8], mutable=["routing"])
        return sown["routing"]["layer_13"]["depthwise"]["weights"]

    def logits(step):
        r = np.asarray(weights(jnp.int32(step)), np.float64)
        return np.log(r / (1 - r)) if kind == "condconv" else np.log(r[:, 1:] / r[:, :1])

    at_end = logits(10)  # T = 1
    assert np.abs(at_end).max() > 0.1
    # 30 + (1 - 30) k / 10; float32 weights near 1/2 or 1/3 leave 1e-7 of a logit, 30 times that.
    for step, temperature in ((0, 30.0), (3, 21.3), (9, 3.9), (11, 1.0)):
        np.testing.assert_allclose(logits(step) * temperature, at_end, rtol=1e-4, atol=3e-5)


def test_training_carries_the_schedule_and_evaluation_reads_it():
    model = network("mobilenet_v1", routing=ANNEALED)
    task = tasks.Classification(model, 8, mean=(0.5,) * 3, std=(0.25,) * 3)
    variables, _ = draw(model)
    params = variables.pop("params")
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 255, (4, 8, 8, 3), np.uint8),
        "label": np.arange(4, dtype=np.int32),
    }
    loss = jax.jit(lambda state: task.loss(params, state, batch, KEY)[1][0])
    state = variables
    for step in (1, 2):
        after = loss(state)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        state = after
        assert (state["schedule"]["step"], state["schedule"]["step"].dtype) == (step, jnp.int32)
    # Evaluation changes nothing and depends on it.
    predict = jax.jit(functools.partial(task.predict, params))
    later = state | {"schedule": {"step": jnp.int32(10)}}
    one, other = predict(state, batch["image"]), predict(later, batch["image"])
    assert np.isfinite(one).all()
    assert not np.allclose(one, other, rtol=1e-3)


# Noise of experts.


@functools.cache
def noisy(noise, sharing):
    """(routing weights by module, what routers gave, logits) of two training steps."""
    routing = RoutingOptions(noise=noise, sharing=sharing, drop_rate=0.25)
    model = network("mobilenet_v1", cond_classifier=True, routing=routing)
    variables, images = draw(model)

    @jax.jit
    def run(key):
        logits, state = model.apply(
            variables,
            images[:, :8, :8],
            train=True,
            capture_intermediates=lambda module, _: (module.name or "").startswith("router_"),
            mutable=["routing", "intermediates", "batch_stats"],
            rngs={"dropout": key},
        )
        routed = state["routing"]
        weights = {
            (layer, part): modules["weights"]
            for layer in ("layer_13", "layer_14")
            for part, modules in routed[layer].items()
        } | {("classifier", ""): routed["classifier"]["weights"]}
        routers = {n: out["__call__"][0] for n, out in state["intermediates"].items()}
        return weights, routers, logits

    return jax.device_get([run(jax.random.key(seed)) for seed in (1, 2)])


@pytest.mark.parametrize("noise", ["drop", "shake"])
def test_training_is_noisy_and_blocks_share_it(noise):
    (weights, routers, one), (_, _, other) = noisy(noise, "none")
    assert not np.allclose(one, other, rtol=1e-3)
    assert set(routers) == {"router_13", "router_14", "router_15"}
    factors = {}
    for number, layer in ((13, "layer_13"), (14, "layer_14"), (15, "classifier")):
        parts = [w for (module, _), w in weights.items() if module == layer]
        assert len(parts) == (1 if number == 15 else 2)
        for part in parts[1:]:
            np.testing.assert_array_equal(part, parts[0])
        factors[number] = parts[0] / routers[f"router_{number}"]
    for number, factor in factors.items():
        if noise == "drop":
            kept = factor != 0
            assert 0 < kept.mean() < 1
            np.testing.assert_allclose(factor[kept], 1 / (1 - 0.25), rtol=1e-5)
        else:
            np.testing.assert_allclose(factor.sum(axis=1), EXPERTS, rtol=1e-5)
            assert (factor >= 0).all()
        # Each layer that routes for itself, and each example, has its own.
        for later in range(number + 1, 16):
            assert not np.allclose(factor, factors[later])
        assert not np.allclose(factor, factor[:1])


@pytest.mark.parametrize("noise", ["drop", "shake"])
def test_layers_that_share_a_routing_share_its_noise(noise):
    (weights, routers, _), (again, _, _) = noisy(noise, "single")
    assert set(routers) == {"router_13"}
    first, *others = weights.values()
    assert len(others) == 4
    for one in others:
        np.testing.assert_array_equal(one, first)
    assert not np.allclose(first, routers["router_13"])
    assert not np.allclose(first, next(iter(again.values())))


@pytest.mark.parametrize("noise", ["drop", "shake"])
def test_evaluation_is_without_noise(noise):
    plain = network("mobilenet_v1")
    model = network("mobilenet_v1", routing=RoutingOptions(noise=noise))
    images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(plain.init, KEY, images)
    # No key is needed, and the program is that of the network without noise.
    programs = {str(jax.make_jaxpr(m.apply)(variables, images)) for m in (plain, model)}
    assert len(programs) == 1
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(
            lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), variables, images
        )


# Padding and drop path.


class One(linen.Module):
    """A function of `Layers` as a network."""

    function: object

    @linen.compact
    def __call__(self, x):
        return self.function(x)


def centres(padding, size, kernel_size, pool=False):
    """Which pixel each output has in the middle of its window, of stride 2."""
    layers = Layers(train=False, padding=padding)
    # Ascending from top left to bottom right.
    x = jnp.arange(1.0, size * size + 1).reshape(1, size, size, 1)
    if pool:
        return np.asarray(layers.max_pool(x, kernel_size, 2))[0, :, :, 0]
    module = One(lambda x: layers.conv(x, 1, kernel_size, stride=2, name="conv"))
    middle = kernel_size // 2
    kernel = jnp.zeros((kernel_size, kernel_size, 1, 1)).at[middle, middle].set(1.0)
    return np.asarray(module.apply({"params": {"conv": {"kernel": kernel}}}, x))[0, :, :, 0]


def test_padding_of_strided_convolutions_by_hand():
    # 4 pixels, 3x3 with stride 2: one pixel of padding, which TensorFlow puts at the end; or one
    # on either side, as PyTorch does.
    np.testing.assert_array_equal(centres("SAME", 4, 3), [[6, 8], [14, 16]])
    np.testing.assert_array_equal(centres("SYMMETRIC", 4, 3), [[1, 3], [9, 11]])
    # Of 5 pixels both pad two.
    for size, kernel_size in ((5, 3), (5, 1), (4, 1), (7, 5)):
        same, symmetric = (centres(padding, size, kernel_size) for padding in PADDINGS)
        np.testing.assert_array_equal(same, symmetric)
    # 6 pixels, 5x5: three, or two on either side.
    assert (centres("SAME", 6, 5)[0, 0], centres("SYMMETRIC", 6, 5)[0, 0]) == (8, 1)


def test_padding_of_pools_by_hand():
    # The largest value of 3x3 is at its lower right: of 4 pixels, rows and columns 2 and 3, or 1
    # and 3. Padding is never the largest, not even of negative values.
    np.testing.assert_array_equal(centres("SAME", 4, 3, pool=True), [[11, 12], [15, 16]])
    np.testing.assert_array_equal(centres("SYMMETRIC", 4, 3, pool=True), [[6, 8], [14, 16]])
    for padding in PADDINGS:
        pooled = Layers(train=False, padding=padding).max_pool(-jnp.ones((1, 4, 4, 1)), 3, 2)
        np.testing.assert_array_equal(pooled, -jnp.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_values_and_no_shapes(name):
    def program(padding):
        model = network(name, padding=padding)
        images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
        variables = jax.eval_shape(model.init, KEY, images)
        return jax.make_jaxpr(model.apply)(variables, images)

    same, symmetric = map(program, PADDINGS)
    assert same.in_avals == symmetric.in_avals
    assert same.out_avals == symmetric.out_avals
    assert str(same) != str(symmetric)


def block(drop_path, train, stride=1):
    stage = Stage(1, 3, 1, 1, 8, squeeze_excite=False)
    return InvertedResidual(8, stage, stride, Layers(train=train), linen.relu, drop_path=drop_path)


def test_drop_path_skips_whole_examples_and_scales_the_others():
    """Of y = x + f(x), f(x) is 0 for some examples, and f(x) / (1 - rate) for the others."""
    rate = 0.75
    x = jax.random.normal(KEY, (64, 4, 4, 8))
    variables = block(0.0, train=False).init(KEY, x, None)
    run = lambda block, **options: block.apply(
        variables, x, None, mutable=["batch_stats"] if block.layers.train else False, **options
    )
    whole, _ = run(block(0.0, train=True))
    dropped, _ = run(block(rate, train=True), rngs={"dropout": jax.random.key(1)})
    branch, left = np.asarray(whole - x), np.asarray(dropped - x)
    skipped = (left == 0).all(axis=(1, 2, 3))
    # 64 examples: 16 kept, with a standard deviation of 3.5.
    assert 5 <= (~skipped).sum() <= 27
    # Differences of numbers near 1 in float32.
    np.testing.assert_allclose(left[~skipped], branch[~skipped] / (1 - rate), atol=1e-5)
    # Evaluation is that of the block that drops nothing.
    np.testing.assert_array_equal(run(block(rate, train=False)), run(block(0.0, train=False)))


def test_a_block_without_a_skip_drops_nothing():
    x = jax.random.normal(KEY, (4, 4, 4, 8))
    variables = block(0.0, train=False).init(KEY, x, None)
    with_rate, without = (
        block(rate, train=True, stride=2).apply(variables, x, None, mutable=["batch_stats"])[0]
        for rate in (0.99, 0.0)
    )
    np.testing.assert_array_equal(with_rate, without)


def test_drop_path_rises_with_the_block():
    """0.2 times index over number of blocks, as the official code has it (16 blocks from 0)."""
    model = models.create("efficientnet_b0", drop_path=0.2)
    rates = {}

    def record(call, args, keywords, context):
        if isinstance(context.module, InvertedResidual):
            rates[context.module.name] = context.module.drop_path
        return call(*args, **keywords)

    with linen.intercept_methods(record):
        jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert rates == {f"layer_{n + 2}": pytest.approx(0.2 * n / 16) for n in range(16)}


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
        shapes(network(name, kind, **options))


def test_layers_refuse_an_unknown_kind():
    layers = Layers(train=False, num_experts=2, cond_layer="dense")
    module = One(lambda x: layers.conv(x, 4, 3, name="conv", conditional=True))
    with pytest.raises(ValueError, match="Layers: unknown cond_layer 'dense'; choose one of"):
        module.init(KEY, jnp.ones((1, 4, 4, 3)))


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
    ("options", "words"),
    [
        ({}, "static"),
        ({"num_experts": 1}, "static"),
        ({"num_experts": 8}, "8 experts"),
        ({"num_experts": 4, "cond_layer": "dynamic"}, "dynamic, 4 experts"),
        ({"num_experts": 4, "cond_layer": "dynamic_filter"}, "dynamic_filter, 4 hidden units"),
        ({"num_experts": 8, "cond_layer": "deformable"}, "deformable"),
        ({"num_experts": 0, "cond_layer": "odconv"}, "static"),
    ],
)
def test_a_network_in_words(options, words):
    assert models.describe({**models.default_options("mobilenet_v1"), **options}) == words
    assert models.describe(models.default_options("msdnet")) == "static"
