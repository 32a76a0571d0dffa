"""Saving and logging on a real full disk: a file system of a few MB in memory."""

import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from condconv_jax.runtime import Checkpoints, JsonLinesWriter, TensorBoardWriter, read_json_lines


@pytest.fixture
def disk(mount_disk):
    """A folder that is a disk of its own."""
    return mount_disk(kilobytes=8192)


def fill(disk, leave=0):
    """Takes all space but `leave` bytes; returns the file that has it."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return ballast


def state_of(step):
    # Random, so that it cannot be compressed: 1 MB.
    return {"w": jax.random.normal(jax.random.key(step), (512, 512))}


def save_and_wait(checkpoints, step):
    checkpoints.save(step, state_of(step))
    checkpoints.wait()


def write_on(writer, written):
    """Writes from step 2, until the file needs another page; notes what was written."""
    for step in range(2, 1000):
        writer.write(step, {"loss": 0.5})
        written.append(step)


def test_a_checkpoint_that_does_not_fit(disk, capfd):
    with Checkpoints(disk / "run") as checkpoints:
        checkpoints.save(1, state_of(1))
        checkpoints.wait()
        ballast = fill(disk, leave=500_000)
        with pytest.raises(OSError, match="No space left") as caught:
            save_and_wait(checkpoints, 2)
    message = str(caught.value)
    assert f"save: No space left on device, {disk / 'run'}: a checkpoint takes up to 1.0 MB" in (
        message
    )
    assert "\n" not in message
    ballast.unlink()
    with Checkpoints(disk / "run") as checkpoints:
        assert checkpoints.damaged == []
        assert checkpoints.latest_step() == 1
        abstract = {"w": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
        assert (checkpoints.restore(abstract)["w"] == state_of(1)["w"]).all()
        checkpoints.save(2, state_of(2))
    assert sorted(os.listdir(disk / "run")) == ["1", "2"]


def test_what_is_raised_at_last_explains_it_too(disk):
    checkpoints = Checkpoints(disk / "run")
    fill(disk)
    # Orbax raises an error of its own, of few words, once more on closing.
    with pytest.raises(OSError, match="save: No space left on device, "), checkpoints:
        save_and_wait(checkpoints, 1)


def test_a_row_that_does_not_fit(disk):
    writer = JsonLinesWriter(disk / "metrics.jsonl")
    writer.write(1, {"loss": 0.5})
    ballast, written = fill(disk), []
    with pytest.raises(OSError, match=r"No space left on device, .*metrics\.jsonl: the row of"):
        write_on(writer, written)
    writer.close()
    ballast.unlink()
    writer = JsonLinesWriter(disk / "metrics.jsonl")
    kept = [row["step"] for row in read_json_lines(disk / "metrics.jsonl")]
    assert kept == [1, *written]  # all but the one that failed
    writer.write(kept[-1] + 1, {"loss": 0.5})
    writer.close()


def test_events_that_do_not_fit(disk):
    writer = TensorBoardWriter(disk / "tensorboard", flush_seconds=0)
    writer.write(1, {"loss": 0.5})
    fill(disk)
    with pytest.raises(OSError, match=r"No space left on device, .*tensorboard: once there is"):
        write_on(writer, [])
    writer.close()
