"""What `make demo` promises, run as it runs it."""

import json
import os
import subprocess
import sys

import pytest


def condconv(*arguments):
    # The suite compiles without optimisations; the demo is trained with them.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    subprocess.run([sys.executable, "-m", "condconv_jax", *arguments], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_both_networks_reach_86_percent_and_the_report_is_written(tmp_path):
    for name in ("static", "condconv"):
        config = f"--config=configs/fashion_mnist/mobilenet_v1.py:{name}"
        condconv("train", config, f"--workdir={tmp_path / name}")
    workdirs = [f"--workdir={tmp_path / name}" for name in ("static", "condconv")]
    condconv("analyze", *workdirs, f"--out={tmp_path}")
    summary = json.loads((tmp_path / "summary.json").read_text())
    for network in summary["networks"]:
        assert network["examples"] == 1500
        assert network["top1"] >= 0.86, network["name"]
    assert (tmp_path / "index.html").stat().st_size > 100_000
