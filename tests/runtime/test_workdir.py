import os
import signal
import subprocess
import sys

import pytest

from condconv_jax.runtime import WorkDir, atomic, check_same_config

HOLD = """
import sys
from condconv_jax.runtime import WorkDir
with WorkDir(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_parts(tmp_path):
    workdir = WorkDir(tmp_path)
    names = {"checkpoints", "metrics", "tensorboard", "report", "config"}
    assert {getattr(workdir, name).name for name in names} == {
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
        "report",
        "config.json",
    }
    assert not list(tmp_path.iterdir())


def test_config_round_trip(tmp_path):
    workdir = WorkDir(tmp_path / "new")
    workdir.write_config({"model": {"num_experts": 8}, "sizes": (1, 2), "note": None})
    assert workdir.read_config() == {"model": {"num_experts": 8}, "sizes": [1, 2], "note": None}
    assert [p.name for p in workdir.path.iterdir()] == ["config.json"]


def test_config_that_cannot_be_written_leaves_the_old_one(tmp_path):
    workdir = WorkDir(tmp_path)
    workdir.write_config({"a": 1})
    with pytest.raises(ValueError, match=r"write_config: .*not JSON serializable\); use numbers"):
        workdir.write_config({"a": object()})
    assert workdir.read_config() == {"a": 1}


@pytest.mark.parametrize("last", ["fsync", "replace"])
def test_a_file_is_the_old_one_until_all_of_the_new_one_is_on_disk(tmp_path, monkeypatch, last):
    path = tmp_path / "config.json"
    atomic.write_text(path, "old")

    def no_space(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, last, no_space)
        with pytest.raises(OSError, match="No space left"):
            atomic.write_text(path, "new")
    assert path.read_text() == "old"
    atomic.write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_no_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*config.json; pass the work directory"):
        WorkDir(tmp_path).read_config()


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[1]", "holds a list; it must be an object")]
)
def test_damaged_config(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        WorkDir(tmp_path).read_config()


def test_same_config(tmp_path):
    config = {"sizes": (1, 2), "rate": 1.0, "limit": float("nan"), "empty": {}}
    workdir = WorkDir(tmp_path)
    workdir.write_config(config)
    check_same_config(workdir.read_config(), config | {"rate": 1})


def test_every_differing_key_is_named():
    saved = {"model": {"name": "resnet50", "num_experts": 8}, "seed": 1, "old": True, "log": 10}
    now = {"model": {"name": "resnet50", "num_experts": 4}, "seed": True, "new": [], "log": 20}
    with pytest.raises(ValueError, match="another config") as caught:
        check_same_config(saved, now)
    differences = str(caught.value).partition("(")[2].partition(")")[0]
    assert differences.split("; ") == [
        "log: saved 10, now 20",
        "model.num_experts: saved 8, now 4",
        "new: saved nothing, now []",
        "old: saved true, now nothing",
        "seed: saved 1, now true",
    ]
    assert str(caught.value).endswith("set these back, or use another work directory")


def test_keys_that_may_change():
    saved = {"log": {"every": 10, "images": False}, "workers": 2}
    now = {"log": {"every": 20, "images": True}, "workers": 0}
    check_same_config(saved, now, may_change=("log.*", "workers"))
    with pytest.raises(ValueError, match=r"directory has another config \(workers: saved 2"):
        check_same_config(saved, now, may_change=("log.*",))


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_end_of_a_run_names_steps_and_machine(tmp_path):
    workdir = WorkDir(tmp_path)
    assert workdir.read_done() == {}
    workdir.write_done(5, {"processor": "a kind", "cores": 2})
    assert workdir.read_done() == {"steps": 5, "machine": {"processor": "a kind", "cores": 2}}
    workdir.write_done(None)
    assert workdir.read_done() == {}


def test_second_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    with (
        pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .*; wait for it"),
        WorkDir(tmp_path).lock(),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with WorkDir(tmp_path).lock():
        pass


def test_lock_is_let_go_at_the_end(tmp_path):
    for _ in range(2):
        with WorkDir(tmp_path).lock():
            pass


def test_lock_is_let_go_on_an_error(tmp_path):
    with pytest.raises(KeyError), WorkDir(tmp_path).lock():
        raise KeyError
    with WorkDir(tmp_path).lock():
        pass
