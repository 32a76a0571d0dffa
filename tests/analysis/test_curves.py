import json

import numpy as np
import pytest

from condconv_jax.analysis import read_curves
from condconv_jax.analysis.curves import thinned


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def metrics(tmp_path):
    def train(step, loss, speed, seconds):
        numbers = {"images_per_second": speed, "seconds": seconds}
        return {"step": step, "kind": "train", "epoch": step / 10, "loss": loss, **numbers}

    return write(
        tmp_path / "metrics.jsonl",
        [
            train(8, 2.0, 10.0, 9.0),
            train(10, 1.5, 100.0, 1.0),
            {"step": 10, "kind": "eval", "loss": 1.4, "top1": 0.5},
            train(16, 1.2, 300.0, 2.0),
            train(20, 0.6, 200.0, 3.0),
            {"step": 20, "kind": "eval", "loss": 1.0, "top1": 0.75},
        ],
    )


def test_curves_are_read_from_the_metrics_file(metrics):
    curves = read_curves(metrics)
    np.testing.assert_allclose(curves.train_epoch, [0.8, 1.0, 1.6, 2.0])
    np.testing.assert_allclose(curves.train_loss, [2.0, 1.5, 1.2, 0.6])
    np.testing.assert_allclose(curves.eval_epoch, [1.0, 2.0])
    np.testing.assert_allclose(curves.eval_top1, [0.5, 0.75])
    assert curves.seconds == 15.0
    assert curves.images_per_second == 200.0  # of 100, 300, 200; the first compiles
    assert curves.final_loss == pytest.approx((6 * 1.2 + 4 * 0.6) / 10)


def test_what_follows_the_checkpoint_is_left_out(metrics):
    curves = read_curves(metrics, last_step=10)
    np.testing.assert_allclose(curves.train_loss, [2.0, 1.5])
    np.testing.assert_allclose(curves.eval_top1, [0.5])
    assert (curves.seconds, curves.images_per_second) == (10.0, 100.0)


def test_one_row_has_no_speed_without_compilation(metrics):
    assert read_curves(metrics, last_step=8).images_per_second is None


def test_missing_metrics_are_named(metrics, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*gone/metrics\.jsonl; training writes it"):
        read_curves(tmp_path / "gone" / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"no row of training metrics up to step 3; pass the work"):
        read_curves(metrics, last_step=3)


def test_long_curves_are_thinned_by_means():
    steps = np.arange(1.0, 1001.0)
    x, y = thinned(steps, 2 * steps, points=100)
    np.testing.assert_allclose(x, np.arange(10, 1001, 10))
    np.testing.assert_allclose(y[:2], [11, 31])  # 2 * mean(1 to 10), 2 * mean(11 to 20)
    x, y = thinned(steps[:3], steps[:3])
    np.testing.assert_allclose([x, y], [steps[:3], steps[:3]])
    assert [list(values) for values in thinned(np.array([0.2]), np.array([7.0]))] == [[0.2], [7.0]]


def test_short_rows_join_their_neighbours():
    x, y = thinned(np.array([1, 1.1, 2.1, 3.1, 3.2]), np.array([1.0, 5.0, 2.0, 3.0, 9.0]))
    np.testing.assert_allclose(x, [1, 2.1, 3.2])
    np.testing.assert_allclose(y, [1, (0.1 * 5 + 2) / 1.1, (3 + 0.1 * 9) / 1.1])
