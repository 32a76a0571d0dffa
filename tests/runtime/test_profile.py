import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from condconv_jax.runtime.profile import StepProfiler


def run(profiler, steps):
    double = jax.jit(lambda x: 2 * x)
    for number in range(steps):
        with profiler.step(number):
            x = double(jnp.ones(4))
        profiler.after(x)
    profiler.close()


def traced_steps(folder):
    (file,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    found = [e["args"].get("step_num") for e in events if e.get("name") == "train"]
    return sorted(int(number) for number in found)


@pytest.mark.parametrize(
    ("steps", "wanted"), [(9, [2, 3, 4]), (4, [2, 3])], ids=["long", "ends while tracing"]
)
def test_so_many_steps_after_the_first_ones(tmp_path, steps, wanted):
    run(StepProfiler(tmp_path / "profile", 3, warm_up=2), steps)
    assert traced_steps(tmp_path / "profile") == wanted


def test_each_of_several_processes_has_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    run(StepProfiler(tmp_path / "profile", 2, warm_up=1), 4)
    assert [folder.name for folder in (tmp_path / "profile").iterdir()] == ["process_1"]
    assert traced_steps(tmp_path / "profile" / "process_1") == [1, 2]


@pytest.mark.parametrize(("traced", "steps"), [(0, 5), (3, 2)])
def test_no_trace(tmp_path, traced, steps):
    run(StepProfiler(tmp_path / "profile", traced, warm_up=2), steps)
    assert not (tmp_path / "profile").exists()


def test_negative_steps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="steps is -1; pass 0"):
        StepProfiler(tmp_path, -1)
