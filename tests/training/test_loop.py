import dataclasses
import json
import math
import pathlib
import threading
import time

import jax
import numpy as np
import pytest
from linear_task import LinearTask, Problem

from condconv_jax.runtime import Checkpoints, JsonLinesWriter, Writers, digests, make_mesh
from condconv_jax.training import (
    LoopSettings,
    NonFiniteLossError,
    StoppedError,
    evaluate,
    make_eval_fn,
    make_optimizer,
    train,
)
from condconv_jax.training.loop import _is_due


def run(
    folder,
    *,
    steps,
    problem=None,
    devices=1,
    until=None,
    log_every=2,
    start_from=lambda state: state,
    stop=lambda: False,
):
    """Trains to `until`, of a run that is `steps` long."""
    problem = problem or Problem()
    optimizer = make_optimizer("sgd", 0.05, weight_decay=1e-3, decay="all")
    settings = LoopSettings(
        total_steps=until or steps,
        batch_size=problem.batch_size,
        epoch_size=32,
        log_every=log_every,
        evaluate_every=4,
        checkpoint_every=2,
    )
    with (
        Checkpoints(folder / "checkpoints", keep_last=2, keep_best=1) as checkpoints,
        Writers(JsonLinesWriter(folder / "metrics.jsonl")) as writers,
    ):
        if (resumed := checkpoints.latest_step()) is not None:
            writers.truncate_after(resumed, evaluated=checkpoints.metrics(resumed) is not None)
        return train(
            LinearTask(),
            optimizer,
            problem.train_batches,
            problem.eval_batches,
            settings=settings,
            mesh=make_mesh(jax.devices()[:devices]),
            key=jax.random.key(7),
            checkpoints=checkpoints,
            writers=writers,
            start_from=start_from,
            stop=stop,
        )


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_resumed_run_is_the_undisturbed_run_bitwise(tmp_path):
    whole = run(tmp_path / "whole", steps=4)
    run(tmp_path / "parts", steps=4, until=2)
    problem = Problem()
    parts = run(tmp_path / "parts", steps=4, problem=problem)
    assert problem.started_at == [2 * 16]  # the sample after the checkpoint's
    assert int(parts.step) == 4
    same(whole, parts)


def test_a_finished_run_stays_as_it_is(tmp_path):
    done = run(tmp_path, steps=4)
    problem = Problem()
    again = run(tmp_path, steps=4, problem=problem)
    assert problem.started_at == []
    same(done, again)


def test_eight_devices_train_as_one(tmp_path):
    one = run(tmp_path / "one", steps=6)
    eight = run(tmp_path / "eight", steps=6, devices=8)
    # Only the order of summation over the batch differs.
    np.testing.assert_allclose(one.params["w"], eight.params["w"], rtol=2e-6)
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "eight"), strict=True):
        assert (a["step"], a["kind"]) == (b["step"], b["kind"])
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-6)


def test_resumes_on_another_number_of_devices(tmp_path):
    whole = run(tmp_path / "whole", steps=4)
    run(tmp_path / "parts", steps=4, until=2, devices=8)
    parts = run(tmp_path / "parts", steps=4, devices=2)
    np.testing.assert_allclose(whole.params["w"], parts.params["w"], rtol=2e-6)


def test_rows_of_the_log(tmp_path):
    run(tmp_path, steps=6)
    written = [(row["step"], row["kind"]) for row in rows(tmp_path)]
    assert written == [
        (2, "train"), (4, "train"), (4, "eval"), (6, "train"), (6, "eval"),
    ]  # fmt: skip
    first = rows(tmp_path)[0]
    assert first["epoch"] == 2 * 16 / 32
    assert first["images_per_second"] == pytest.approx(2 * 16 / first["seconds"])
    assert 0 <= first["input_wait"] < 1


def test_waiting_for_input_is_measured(tmp_path):
    """Each batch sleeps for 20 ms in the loop's own thread, which therefore waits that long."""

    class Slow(Problem):
        def rows(self, first, count):
            time.sleep(0.02)
            return super().rows(first, count)

    run(tmp_path, steps=6, problem=Slow())
    for row in rows(tmp_path):
        if row["kind"] == "train":
            assert 2 * 0.02 <= row["input_wait"] * row["seconds"] <= row["seconds"]


def test_logged_loss_is_the_mean_over_the_window(tmp_path):
    """Two steps by hand: the weights before each, its own key, its own samples."""
    run(tmp_path, steps=2)
    key_init, key_train = jax.random.split(jax.random.key(7))
    task, problem = LinearTask(), Problem()
    params, state = task.init(key_init)
    losses, velocity = [], np.zeros(3, np.float32)
    for step in range(2):
        batch = problem.rows(16 * step, 16)
        key = jax.random.fold_in(key_train, step)
        (loss, _), gradient = jax.value_and_grad(task.loss, has_aux=True)(params, state, batch, key)
        losses.append(float(loss))
        slope = np.asarray(gradient["w"]) + 1e-3 * np.asarray(params["w"])
        velocity = 0.9 * velocity + slope
        params = {"w": params["w"] - 0.05 * (slope + 0.9 * velocity)}  # Nesterov
    assert rows(tmp_path)[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_evaluation_counts_each_example_once(tmp_path):
    state = run(tmp_path, steps=2)
    mesh, problem, task = make_mesh(jax.devices()[:1]), Problem(), LinearTask()
    with jax.set_mesh(mesh):
        scores = evaluate(task, make_eval_fn(task, mesh), state, problem.eval_batches(), mesh)
    x = problem.rows(1000, 20)
    errors = (x["x"] @ np.asarray(state.params["w"]) - x["y"]) ** 2
    assert scores["examples"] == 20
    assert scores["loss"] == pytest.approx(errors.mean(), rel=1e-5)
    assert scores["top1"] == pytest.approx((errors < 1).mean())
    assert scores["largest"] == pytest.approx(errors.max(), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    problem = Problem(bad_from=16 * 4)  # of the fifth step
    with pytest.raises(NonFiniteLossError, match=r"train: the loss is nan at step 5; .*Lower the"):
        run(tmp_path, steps=10, problem=problem)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 4
    # And what was kept is good to go on from.
    state = run(tmp_path, steps=6)
    assert np.isfinite(np.asarray(state.params["w"])).all()


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    class Cusp(LinearTask):
        def loss(self, params, model_state, batch, key):
            loss, aux = super().loss(params, model_state, batch, key)
            # 0 * sqrt(0): the value is 0, its gradient NaN.
            return loss + 0 * jax.numpy.sqrt(params["w"][0] * 0), aux

    optimizer = make_optimizer("sgd", 0.05)
    problem, settings = Problem(), LoopSettings(4, 16, 32, 2, 4, 2)
    with (
        Checkpoints(tmp_path / "checkpoints") as checkpoints,
        Writers() as writers,
        pytest.raises(NonFiniteLossError, match="the gradient norm is nan at step 1"),
    ):
        train(
            Cusp(),
            optimizer,
            problem.train_batches,
            problem.eval_batches,
            settings=settings,
            mesh=make_mesh(jax.devices()[:1]),
            key=jax.random.key(0),
            checkpoints=checkpoints,
            writers=writers,
        )


def test_evaluation_that_is_not_finite_stops_the_run():
    task, problem, mesh = LinearTask(), Problem(), make_mesh(jax.devices()[:1])
    from condconv_jax.training import TrainState

    state = TrainState(jax.numpy.int32(3), {"w": jax.numpy.full(3, math.nan)}, {}, ())
    with jax.set_mesh(mesh), pytest.raises(NonFiniteLossError, match="nan after step 3"):
        evaluate(task, make_eval_fn(task, mesh), state, problem.eval_batches(), mesh)


def test_start_from_changes_the_first_state_only(tmp_path):
    calls = []

    def start_from(state):
        calls.append(int(state.step))
        return state.replace(params={"w": np.full(3, 5.0, np.float32)})

    run(tmp_path, steps=4, until=2, start_from=start_from)
    run(tmp_path, steps=4, start_from=start_from)
    assert calls == [0]


def test_settings_refuse_zero():
    with pytest.raises(ValueError, match="LoopSettings: log_every is 0; pass at least 1"):
        LoopSettings(4, 16, 32, 0, 4, 2)


def test_what_is_due_need_not_be_so_each_whole_number_of_steps():
    def due(every, last):
        return [step for step in range(1, last + 1) if _is_due(step, every)]

    assert due(3, 10) == [3, 6, 9]
    # 2.5, 5, 7.5 and 10: the step that reaches each.
    assert due(2.5, 10) == [3, 5, 8, 10]
    # Epochs of 3000 examples in batches of 64: the eighth ends with a batch.
    assert due(46.875, 375) == [47, 94, 141, 188, 235, 282, 329, 375]


def test_steps_before_a_broken_sample_are_saved(tmp_path):
    class Broken(Problem):
        def train_batches(self, start):
            for number, batch in enumerate(super().train_batches(start)):
                if start // 16 + number == 3:  # the batch of step 4
                    raise ValueError("cannot decode 3.png")
                yield batch

    with pytest.raises(ValueError, match=r"cannot decode 3.png"):
        run(tmp_path / "broken", steps=6, problem=Broken())
    with Checkpoints(tmp_path / "broken" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 3
    same(run(tmp_path / "broken", steps=6), run(tmp_path / "whole", steps=6))


def test_steps_before_a_broken_evaluation_are_saved(tmp_path):
    class Broken(Problem):
        def eval_batches(self):
            raise OSError("cannot read val.npz")

    with pytest.raises(OSError, match=r"cannot read val.npz"):
        run(tmp_path, steps=6, problem=Broken())
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 4
        with pytest.raises(ValueError, match="is open to read only"):
            checkpoints.save(5, {})


def test_a_save_that_failed_ends_the_run_at_the_next_row(tmp_path, monkeypatch):
    """The save of step 2 fails while the batch of step 3 is waited for; the next is of step 4."""
    failed = threading.Event()

    def refuse(folder):
        failed.set()
        raise OSError(f"no space for {folder.name}")

    class Patient(Problem):
        def train_batches(self, start):
            for number, batch in enumerate(super().train_batches(start), 1):
                if number == 3:
                    assert failed.wait(60)
                    time.sleep(0.1)  # until the thread has left it
                yield batch

    monkeypatch.setattr(digests, "write", refuse)
    with pytest.raises(OSError, match="no space for 2"):
        run(tmp_path, steps=6, log_every=3, problem=Patient())
    # Not even the row that it was noticed at.
    assert [row["step"] for row in rows(tmp_path)] == [2]


def test_the_learning_rate_is_logged(tmp_path):
    problem, settings = Problem(), LoopSettings(4, 16, 32, 2, 4, 4)
    with (
        Checkpoints(tmp_path / "checkpoints") as checkpoints,
        Writers(JsonLinesWriter(tmp_path / "metrics.jsonl")) as writers,
    ):
        train(
            LinearTask(),
            make_optimizer("sgd", lambda step: 0.1 / (step + 1)),
            problem.train_batches,
            problem.eval_batches,
            settings=settings,
            mesh=make_mesh(jax.devices()[:1]),
            key=jax.random.key(0),
            checkpoints=checkpoints,
            writers=writers,
            learning_rate=lambda step: 0.1 / (step + 1),
        )
    # Of steps 2 and 4, which are numbered 1 and 3 from 0.
    rates = [row["learning_rate"] for row in rows(tmp_path) if row["kind"] == "train"]
    assert rates == pytest.approx([0.1 / 2, 0.1 / 4])


def stop_at(call):
    """Says to stop the `call`-th time it is asked, from 1."""
    calls = iter(range(1, 1000))
    return lambda: next(calls) == call


def scores_and_losses(folder):
    clock = ("seconds", "images_per_second", "input_wait")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows(folder)]


# Of a run of 8 steps: asked after each step, and at steps 4 and 8 before each of two batches.
@pytest.mark.parametrize(
    ("call", "step"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 5), (10, 8), (12, 8)]
)
def test_stopped_anywhere_it_goes_on_as_if_nothing_had_happened(tmp_path, whole, call, step):
    with pytest.raises(StoppedError, match=f"stopped at step {step}; call it again") as stopped:
        run(tmp_path, steps=8, log_every=3, stop=stop_at(call))
    assert stopped.value.step == step
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == step
    same(run(tmp_path, steps=8, log_every=3), whole.state)
    assert scores_and_losses(tmp_path) == scores_and_losses(whole.folder)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert (checkpoints.all_steps(), checkpoints.best_step()) == whole.kept


def test_stopped_in_the_evaluation_that_was_left_unfinished(tmp_path, whole):
    for call in (5, 2, 1):  # in the evaluation of step 4, and in what is left of it
        with pytest.raises(StoppedError, match="at step 4"):
            run(tmp_path, steps=8, log_every=3, stop=stop_at(call))
    same(run(tmp_path, steps=8, log_every=3), whole.state)
    assert scores_and_losses(tmp_path) == scores_and_losses(whole.folder)


@dataclasses.dataclass
class Whole:
    folder: pathlib.Path
    state: object
    kept: tuple


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of 8 steps."""
    folder = tmp_path_factory.mktemp("whole")
    state = run(folder, steps=8, log_every=3)
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return Whole(folder, state, (checkpoints.all_steps(), checkpoints.best_step()))
