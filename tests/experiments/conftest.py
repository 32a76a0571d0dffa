import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))

# Instead of `condconv train`: does what its overrides say.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

keys = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[2:])
workdir = Path(keys["workdir"])
(workdir / "done.json").unlink(missing_ok=True)
print("training", keys["config"], flush=True)
if "config.notes_its_cores" in keys:
    (workdir / "cores").write_text(json.dumps(sorted(os.sched_getaffinity(0))))
if how := keys.get("config.fails"):
    print(f"condconv train: {how}")
    sys.exit(1)
if keys.get("config.sleeps"):
    def stop(*_):
        print("stopped by SIGTERM at step 3", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    (workdir / "process").write_text(str(os.getpid()))
    (workdir / "asleep").touch()
    time.sleep(60)
if "config.stops_early" in keys:
    sys.exit(0)
if "config.loses_its_checkpoint" not in keys:
    (workdir / "checkpoints" / "4").mkdir(parents=True)
(workdir / "done.json").write_text(json.dumps({"steps": 4}))
print("done: 4 steps, everything is in", workdir)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Has `python -m condconv_jax` be the stand-in, for processes started from here on."""
    package = tmp_path / "stand_in" / "condconv_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    (package / "names.py").write_text(Path("condconv_jax/names.py").read_text())
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{EXPERIMENTS}")
    # The current folder comes first, so that of the tests must not have the package in it.
    monkeypatch.setenv("PYTHONSAFEPATH", "1")


@pytest.fixture
def sweep_file(tmp_path):
    def write(text):
        path = tmp_path / "sweep_file.py"
        path.write_text("from sweep import Run\n" + text)
        return path

    return write


# A network and a data set that train in seconds.
TINY = {
    "model.width": 0.1,
    "model.num_experts": 2,
    "model.begin_layer": 14,
    "model.early_strides": (2, 2, 2),
    "data.train": "train[:64]",
    "data.eval": "test[:20]",
    "batch_size": 16,
    "eval_batch_size": 16,
    "epochs": 1,
    "schedule.warmup_epochs": 0.25,
    "log_every": 1,
}


@pytest.fixture
def tiny_changes():
    """Of a config, which make its run one of seconds."""
    return dict(TINY)


@pytest.fixture
def write_sweep(tmp_path):
    """Writes a sweep file of tiny runs: what each changes, by its name."""

    def write(**runs):
        lines = ["from sweep import Run", "SWEEP = ["]
        config = "configs/fashion_mnist/mobilenet_v1.py:condconv"
        for name, changes in runs.items():
            lines.append(f"    Run({name!r}, {config!r}, { {**TINY, **changes}!r}),")
        path = tmp_path / "sweep_of_tests.py"
        path.write_text("\n".join([*lines, "]", ""]))
        return path

    return write


@pytest.fixture
def one_device(monkeypatch):
    """The batches of tiny runs do not divide among the eight devices of the suite."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
