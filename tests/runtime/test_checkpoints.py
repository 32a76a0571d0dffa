import errno
import logging
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.runtime import Checkpoints, load_tree, make_mesh, replicated
from condconv_jax.runtime.checkpoints import SMALLEST_PART


def state_at(step):
    return {"params": {"w": jnp.full((2, 3), step, jnp.float32)}, "step": jnp.int32(step)}


def save_all(checkpoints, metrics):
    for step, value in metrics.items():
        checkpoints.save(step, state_at(step), metrics=None if value is None else {"top1": value})


def test_saves_and_restores_the_newest(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.all_steps() == []
        save_all(checkpoints, {10: None, 20: None})
        assert checkpoints.latest_step() == 20
        restored = checkpoints.restore(jax.eval_shape(lambda: state_at(0)))
    np.testing.assert_array_equal(restored["params"]["w"], state_at(20)["params"]["w"])


def test_closing_finishes_the_save(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save_all(checkpoints, {1: None})
    assert load_tree(tmp_path)["step"] == 1


@pytest.mark.parametrize(
    ("options", "metrics", "kept", "best"),
    [
        ({"keep_last": 2, "keep_best": 0}, {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.1}, [3, 4], 3),
        ({"keep_last": 1, "keep_best": 1}, {1: 0.1, 2: 0.9, 3: 0.7, 4: 0.8}, [2, 4], 2),
        ({"keep_last": 1, "keep_best": 2}, {1: 0.1, 2: 0.9, 3: 0.7, 4: 0.8}, [2, 4], 2),
        # Without metrics they are kept as the newest only, and don't pile up.
        ({"keep_last": 2}, {1: 0.9, 2: None, 3: None, 4: None, 5: None}, [1, 4, 5], 1),
        ({"keep_last": 2}, {1: None, 2: None, 3: None, 4: None}, [3, 4], None),
        # A run that diverged keeps its best; of equals the newest counts.
        ({"keep_last": 1}, {1: 0.5, 2: float("nan"), 3: float("nan")}, [1, 3], 1),
        ({"keep_last": 1}, {1: 0.5, 2: 0.5, 3: 0.1}, [2, 3], 2),
    ],
)
def test_retention(tmp_path, options, metrics, kept, best):
    with Checkpoints(tmp_path, **options) as checkpoints:
        save_all(checkpoints, metrics)
        assert checkpoints.all_steps() == kept
        assert checkpoints.best_step() == best
    with Checkpoints(tmp_path, **options) as reopened:
        assert reopened.all_steps() == kept
        assert reopened.best_step() == best


def test_retention_goes_on_after_reopening(tmp_path):
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save_all(checkpoints, {1: 0.9, 2: 0.1})
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save_all(checkpoints, {3: 0.5})
        assert checkpoints.all_steps() == [1, 3]
        save_all(checkpoints, {4: 0.95})
        assert checkpoints.all_steps() == [4]


def test_state_may_be_donated_while_it_is_saved(tmp_path):
    step = jax.jit(partial(jax.tree.map, lambda x: x + 1), donate_argnums=0)
    state = {f"w{i}": jnp.zeros((500, 500)) for i in range(20)}
    with Checkpoints(tmp_path, keep_last=3) as checkpoints:
        for number in (0, 2, 4):
            checkpoints.save(number, state)
            state = step(step(state))
        for number in (0, 2, 4):
            tree = load_tree(tmp_path, number) if number < 4 else checkpoints.restore(state, 4)
            assert all((w == number).all() for w in tree.values())


@pytest.mark.parametrize(("size", "programs"), [(8 * SMALLEST_PART, 8), (SMALLEST_PART, 0)])
def test_devices_share_large_arrays_and_no_program_is_compiled_for_small_ones(
    tmp_path, caplog, size, programs
):
    state = {"w": jax.device_put(jnp.zeros(size // 4), replicated(make_mesh()))}
    with Checkpoints(tmp_path) as checkpoints, jax.log_compiles():
        checkpoints.save(1, state)
        checkpoints.wait()
    compiled = [one for one in caplog.messages if one.startswith("Finished XLA compilation")]
    assert len(compiled) == programs
    assert not load_tree(tmp_path)["w"].any()


def test_metrics_may_be_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_at(1), metrics={"top1": jnp.float32(0.5), "n": np.int64(3)})
        assert checkpoints.best_step() == 1


def test_what_a_killed_deletion_left_is_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path, keep_last=3) as checkpoints:
        save_all(checkpoints, {1: 0.1, 2: 0.2, 3: 0.3})
    for step, part in ((1, "state/_METADATA"), (2, "_CHECKPOINT_METADATA")):
        (tmp_path / str(step) / part).unlink()
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        assert checkpoints.all_steps() == [3]
        assert checkpoints.best_step() == 3
        save_all(checkpoints, {4: 0.4})
        assert checkpoints.all_steps() == [4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4"]


def test_what_a_killed_save_left_is_cleared(tmp_path):
    (tmp_path / "7.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        save_all(checkpoints, {1: None})
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_failed_save_is_raised_and_the_next_one_works(tmp_path, capfd, monkeypatch):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(tmp_path) as checkpoints:
        save_all(checkpoints, {1: 0.1})
        checkpoints.wait()
        with monkeypatch.context() as full_disk:
            full_disk.setattr(os, "rename", no_space)
            full_disk.setattr(os, "replace", no_space)
            checkpoints.save(2, state_at(2), metrics={"top1": 0.2})
            with pytest.raises(OSError, match="No space left on device"):
                checkpoints.wait()
        assert checkpoints.all_steps() == [1]
        assert checkpoints.best_step() == 1
        save_all(checkpoints, {2: 0.2})
        assert checkpoints.all_steps() == [1, 2]
    assert capfd.readouterr().err == ""


def test_orbax_is_silent_unless_debugging(tmp_path, caplog):
    with caplog.at_level(logging.INFO), Checkpoints(tmp_path) as checkpoints:
        save_all(checkpoints, {1: None})
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, logger="absl"), Checkpoints(tmp_path) as checkpoints:
        save_all(checkpoints, {2: None})
    assert caplog.records


def test_step_that_is_saved_already(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save_all(checkpoints, {5: None})
        with pytest.raises(ValueError, match=r"save: step 5 is not after 5.*resume from it"):
            save_all(checkpoints, {5: None})


def test_metrics_without_the_best_one(tmp_path):
    with Checkpoints(tmp_path, best_metric="mAP") as checkpoints:
        with pytest.raises(ValueError, match=r"metrics has top1, not 'mAP'.*pass keep_best=0"):
            save_all(checkpoints, {1: 0.5})
        assert checkpoints.all_steps() == []
    with Checkpoints(tmp_path, best_metric="mAP", keep_best=0) as checkpoints:
        save_all(checkpoints, {1: 0.5})
        assert checkpoints.best_step() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_last": 0}, "keep_last is 0, keep_best 1; keep at least the last 1"),
        ({"keep_best": -1}, "keep_best -1"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path / "checkpoints", **options)
    assert not list(tmp_path.iterdir())
