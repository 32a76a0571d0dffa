"""What training changes of the routing, temperature and noise of experts, and what it does not."""

import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conditional_networks import EXPERTS, KEY, SIZE, small_network
from small_networks import by_path, draw

from condconv_jax import tasks
from condconv_jax.models import RoutingOptions
from condconv_jax.models.network import ForwardPass, Network
from condconv_jax.models.placement import Layout
from condconv_jax.models.routing import current_temperature

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
    model = small_network("mobilenet_v1", kind, routing=ANNEALED)
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
    model = small_network("mobilenet_v1", routing=ANNEALED)
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
    model = small_network("mobilenet_v1", cond_classifier=True, routing=routing)
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
    plain = small_network("mobilenet_v1")
    model = small_network("mobilenet_v1", routing=RoutingOptions(noise=noise))
    images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(plain.init, KEY, images)
    # No key is needed, and the program is that of the network without noise.
    programs = {str(jax.make_jaxpr(m.apply)(variables, images)) for m in (plain, model)}
    assert len(programs) == 1
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(
            lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), variables, images
        )


# Dropout, which is of features.


class ClassifierAlone(Network):
    def layout(self):
        return Layout((), {2: ("cond_classifier", True)})

    @linen.compact
    def __call__(self, x, *, train=False):
        return ForwardPass(self, train=train).classify(x)


def test_the_classifier_routes_by_what_dropout_has_not_seen():
    model = ClassifierAlone(num_classes=5, num_experts=EXPERTS, only_layer=2, dropout=0.5)
    variables, images = draw(model, (8, 2, 2, 3))

    @jax.jit
    def run(key):
        logits, sown = model.apply(
            variables, images, train=True, mutable=["routing"], rngs={"dropout": key}
        )
        return logits, sown["routing"]["classifier"]["weights"]

    (one, weights), (other, again) = (run(jax.random.key(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(weights, again)
    assert not np.allclose(one, other, rtol=1e-3)
