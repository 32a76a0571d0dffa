"""Detectors trained in processes of their own: what takes minutes, or several processes."""

import os
import subprocess
import sys

import pytest
from detection_data import DETECTOR, write_detection_data
from test_detection_verbs import scores_in
from test_interruptions import ends, start_several

from condconv_jax import runtime
from condconv_jax.cli import main

pytestmark = pytest.mark.slow

DATA = os.environ.get("CONDCONV_DATA")
# 16 pictures of COCO as they are, again and again.
BY_HEART = [
    "--config=configs/bccd/ssd300_mobilenet_v1.py:static",
    "--config.data.train=train2017[:16]",
    "--config.data.eval=train2017[:16]",
    "--config.data.crop=False",
    "--config.data.photometric=False",
    "--config.data.flip=none",
    "--config.data.max_boxes=100",
    "--config.model.early_strides=(2,2,2)",
    "--config.model.min_scale=0.2",
    "--config.model.max_scale=0.95",
    "--config.batch_size=16",
    "--config.eval_batch_size=16",
    "--config.epochs=200",
    "--config.eval_every_epochs=200",
    "--config.checkpoint_every_epochs=200",
    "--config.schedule.learning_rate=0.05",
    "--config.schedule.warmup_epochs=10",
    "--config.average_decay=0.0",
    "--config.optimizer.clip_norm=0.0",
    "--config.optimizer.weight_decay=0.0",
]


@pytest.mark.skipif(not DATA, reason="CONDCONV_DATA, with coco-small in it, is not set")
@pytest.mark.timeout(1200)
def test_sixteen_pictures_of_coco_are_learned_by_heart(tmp_path):
    """Targets, decoding, suppression and evaluation agree, or this would be impossible."""
    command = [sys.executable, "-m", "condconv_jax", "train", *BY_HEART]
    command += [f"--config.data.path={DATA}/coco-small", f"--workdir={tmp_path}"]
    # As fast as a user's, not as the tests are compiled.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    subprocess.run(command, env=environment | {"JAX_NUM_CPU_DEVICES": "1"}, check=True)
    (row,) = runtime.read_json_lines(tmp_path / "metrics.jsonl", "eval")
    assert row["ap"] > 0.9


def test_two_processes_score_as_one(tmp_path, coordinator, capsys):
    root = write_detection_data(tmp_path / "shapes", {"train": 16, "val": 10})
    arguments = [*DETECTOR, f"--config.data.path={root}"]
    statuses, outputs = ends(*start_several(arguments, tmp_path / "two", coordinator))
    assert statuses == [0, 0], outputs
    assert main(["evaluate", f"--workdir={tmp_path / 'two'}"]) == 0
    alone = scores_in(capsys.readouterr().out)
    row = runtime.read_json_lines(tmp_path / "two" / "metrics.jsonl", "eval")[-1]
    # 10 pictures in batches of 8: most of the second batch is filling. The four digits printed.
    for name in ("ap", "ap50", "loss"):
        assert alone[name] == f"{row[name]:.4f}"
