import jax
import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

from condconv_jax.runtime import TensorBoardWriter, WorkDir, Writers, make_writers, read_json_lines


def events_in(directory):
    """Returns the events of the newest file: each is length (8), crc (4), bytes, crc (4)."""
    path = max(directory.iterdir(), key=lambda p: p.stat().st_mtime_ns)
    data, events = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return events


def scalars_in(directory):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events_in(directory)
        for value in event.summary.value
    ]


def test_tensorboard_tags_and_values(tmp_path):
    writer = TensorBoardWriter(tmp_path / "tb")
    writer.write(3, {"loss": jnp.bfloat16(0.5)})
    writer.write(4, {"top1": 0.25}, kind="eval")
    writer.close()
    assert scalars_in(tmp_path / "tb") == [(3, "train/loss", 0.5), (4, "eval/top1", 0.25)]


def test_tensorboard_hides_steps_after_the_checkpoint(tmp_path):
    writer = TensorBoardWriter(tmp_path / "tb")
    writer.truncate_after(7)
    writer.write(8, {"loss": 1.0})
    writer.close()
    (start,) = [e for e in events_in(tmp_path / "tb") if e.HasField("session_log")]
    assert start.step == 8  # TensorBoard drops what an earlier file has from this step on


def test_tensorboard_makes_nothing_until_it_writes(tmp_path):
    TensorBoardWriter(tmp_path / "tb").close()
    assert not (tmp_path / "tb").exists()


def test_tensorboard_truncated_too_late(tmp_path):
    writer = TensorBoardWriter(tmp_path / "tb")
    writer.write(1, {"loss": 1.0})
    with pytest.raises(ValueError, match="call it once, before writing"):
        writer.truncate_after(1)
    writer.close()


def run(workdir, steps, resume_step):
    with make_writers(workdir, total_steps=9, batch_size=1, resume_step=resume_step) as writers:
        for step in steps:
            writers.write(step, {"loss": jnp.float32(step)})


def test_resumed_run_logs_each_step_once(tmp_path):
    workdir = WorkDir(tmp_path)
    run(workdir, [0, 1, 2, 3, 4], None)
    run(workdir, [3, 4, 5], 2)  # the last checkpoint was at 2
    assert [item["step"] for item in read_json_lines(workdir.metrics)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_run_that_died_in_its_evaluation_logs_it_once(tmp_path, evaluated):
    workdir, numbers = WorkDir(tmp_path), {"total_steps": 9, "batch_size": 1}
    with make_writers(workdir, **numbers) as writers:
        writers.write(2, {"loss": 1.0})
        writers.write(2, {"top1": 0.5}, "eval")
    with make_writers(workdir, **numbers, resume_step=2, evaluated=evaluated):
        pass
    kinds = [item["kind"] for item in read_json_lines(workdir.metrics)]
    assert kinds == ["train", *(["eval"] if evaluated else [])]


def test_run_without_a_checkpoint_starts_anew(tmp_path):
    workdir = WorkDir(tmp_path)
    run(workdir, [0, 1], None)
    run(workdir, [0], None)
    assert [item["step"] for item in read_json_lines(workdir.metrics)] == [0]


def test_progress_goes_to_stderr(tmp_path, capsys):
    with make_writers(WorkDir(tmp_path), total_steps=9, batch_size=1) as writers:
        writers.write(1, {"loss": 2.0})
    assert capsys.readouterr().err == "step 1/9 (11.1%)  loss 2.0000\n"


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    workdir = WorkDir(tmp_path)
    run(workdir, [1], None)
    Writers(TensorBoardWriter(workdir.tensorboard)).write(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())
