import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_task import LinearTask, Problem

from condconv_jax.runtime import compute, make_mesh, put_batch
from condconv_jax.training import init_state, make_optimizer, train_step
from condconv_jax.training.state import update_averages

TASK = LinearTask(noise=0.0)
KEY = jax.random.key(3)


def steps(count, *, devices=1, averages=False, **options):
    """The state and the metrics after some steps of a linear problem."""
    optimizer, mesh = make_optimizer("sgd", 0.05), make_mesh(jax.devices()[:devices])
    with jax.set_mesh(mesh):
        step = jax.jit(functools.partial(train_step, TASK, optimizer, **options))
        state = init_state(TASK, optimizer, jax.random.key(0), averages=averages)
        batches = Problem(batch_size=16).train_batches(0)
        for _ in range(count):
            state, metrics = step(state, put_batch(next(batches), mesh), KEY)
    return state, compute(jax.device_get(metrics))


@pytest.mark.parametrize(("parts", "devices"), [(4, 1), (2, 8)])
def test_micro_batches_are_the_batch(parts, devices):
    """The mean of equal parts' means is the mean; only the order of summation differs."""
    whole, whole_metrics = steps(3)
    split, split_metrics = steps(3, micro_batches=parts, devices=devices)
    np.testing.assert_allclose(split.params["w"], whole.params["w"], rtol=1e-6)
    for name in ("loss", "gradient_norm"):
        assert split_metrics[name] == pytest.approx(whole_metrics[name], rel=1e-5)
    # The model's state goes from part to part.
    assert float(whole.model_state["steps"]) == 3
    assert float(split.model_state["steps"]) == 3 * parts


def test_micro_batches_are_one_step_of_a_schedule():
    class Annealed(LinearTask):
        def init(self, key):
            params, model_state = super().init(key)
            return params, {**model_state, "schedule": {"step": jnp.int32(0)}}

        def loss(self, params, model_state, batch, key):
            others = {k: v for k, v in model_state.items() if k != "schedule"}
            loss, (others, metrics) = super().loss(params, others, batch, key)
            done = model_state["schedule"]["step"] + 1
            return loss, ({**others, "schedule": {"step": done}}, metrics)

    task, optimizer = Annealed(), make_optimizer("sgd", 0.05)
    state = init_state(task, optimizer, jax.random.key(0))
    for _ in range(3):
        batch = Problem(batch_size=16).rows(0, 16)
        state, _ = train_step(task, optimizer, state, batch, KEY, micro_batches=4)
    assert int(state.model_state["schedule"]["step"]) == 3
    assert float(state.model_state["steps"]) == 12


def test_micro_batches_draw_each_for_itself():
    noisy = LinearTask(noise=1.0)
    seen = []

    class Watching(LinearTask):
        def loss(self, params, model_state, batch, key):
            jax.debug.callback(
                lambda k: seen.append(tuple(np.asarray(k))), jax.random.key_data(key)
            )
            return noisy.loss(params, model_state, batch, key)

    task, optimizer = Watching(), make_optimizer("sgd", 0.05)
    state = init_state(task, optimizer, jax.random.key(0))
    train_step(task, optimizer, state, Problem(batch_size=16).rows(0, 16), KEY, micro_batches=4)
    jax.effects_barrier()
    assert len(set(seen)) == 4


def test_micro_batches_stay_on_their_devices():
    """Splitting a sharded batch must not send examples from device to device."""
    optimizer, mesh = make_optimizer("sgd", 0.05), make_mesh()
    with jax.set_mesh(mesh):
        state = init_state(TASK, optimizer, jax.random.key(0))
        step = jax.jit(functools.partial(train_step, TASK, optimizer, micro_batches=2))
        batch = put_batch(Problem().rows(0, 16), mesh)
        text = step.lower(state, batch, KEY).compile().as_text()
    for moving in ("all-gather", "all-to-all", "collective-permute"):
        assert moving not in text


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="16 examples in 3 micro-batches"):
        steps(1, micro_batches=3)


def test_the_gradient_norm_is_that_before_clipping():
    optimizer = make_optimizer("sgd", 0.05, momentum=0.0, nesterov=False, clip_norm=0.01)
    state = init_state(TASK, optimizer, jax.random.key(0))
    batch, before = Problem(batch_size=16).rows(0, 16), np.asarray(state.params["w"])
    after, metrics = jax.jit(functools.partial(train_step, TASK, optimizer))(state, batch, KEY)
    # Of the mean of (x w - y)^2 over 16 examples.
    gradient = 2 / 16 * batch["x"].T @ (batch["x"] @ before - batch["y"])
    assert np.linalg.norm(gradient) > 1
    norm = compute(jax.device_get(metrics))["gradient_norm"]
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    # The step was of the clipped one; differences of numbers near 1 in float32.
    moved = np.linalg.norm(after.params["w"] - before)
    assert moved == pytest.approx(0.05 * 0.01, rel=1e-3)


def test_averages_by_hand():
    """Decays 2/11 and 3/12 of the first two steps, both below 0.9; counters are not averaged."""
    optimizer = optax.sgd(0.0)
    start = init_state(TASK, optimizer, jax.random.key(0), averages=True)
    averages = {
        "params": {"w": jnp.array([1.0])},
        "model_state": {"mean": jnp.array(4.0), "step": jnp.int32(0)},
    }
    for step, value in ((1, 3.0), (2, 5.0)):
        after = start.replace(
            step=jnp.int32(step),
            params={"w": jnp.array([value])},
            model_state={"mean": jnp.array(value), "step": jnp.int32(step)},
        )
        averages = update_averages(averages, after, 0.9)
    first = 2 / 11 * 1 + 9 / 11 * 3
    np.testing.assert_allclose(averages["params"]["w"], [0.25 * first + 0.75 * 5], rtol=1e-6)
    first = 2 / 11 * 4 + 9 / 11 * 3
    np.testing.assert_allclose(averages["model_state"]["mean"], 0.25 * first + 0.75 * 5, rtol=1e-6)
    assert int(averages["model_state"]["step"]) == 2


def test_the_first_step_is_the_first_of_the_averages():
    """Its decay is 2/11, not yet the 0.5 asked for."""
    before = init_state(TASK, optax.sgd(0.0), jax.random.key(0)).params["w"]
    after, _ = steps(1, averages=True, average_decay=0.5)
    want = 2 / 11 * before + 9 / 11 * after.params["w"]
    np.testing.assert_allclose(after.averages["params"]["w"], want, rtol=1e-5)
    # One of a step counted so far, and none before it.
    assert float(after.averages["model_state"]["steps"]) == pytest.approx(9 / 11)
    assert np.abs(after.params["w"] - before).min() > 0.01


def test_decay_is_the_one_asked_for_after_long():
    """At step 10,000 (1 + n) / (10 + n) is 0.9991, above 0.9."""
    state = init_state(TASK, optax.sgd(0.0), jax.random.key(0), averages=True)
    far = state.replace(
        step=jnp.int32(10_000),
        params={"w": state.params["w"] + 1},
        model_state={"steps": jnp.array(10.0)},
    )
    averages = update_averages(state.averages, far, 0.9)
    np.testing.assert_allclose(averages["params"]["w"], state.params["w"] + 0.1, rtol=1e-5)
    np.testing.assert_allclose(averages["model_state"]["steps"], 1.0, rtol=1e-5)


def test_averages_are_evaluated_and_training_does_not_see_them():
    plain, _ = steps(4)
    averaged, _ = steps(4, averages=True, average_decay=0.5)
    np.testing.assert_array_equal(plain.params["w"], averaged.params["w"])
    params, model_state = averaged.to_evaluate()
    assert not np.array_equal(params["w"], plain.params["w"])
    assert set(model_state) == {"steps"}
    assert plain.to_evaluate() == (plain.params, plain.model_state)
