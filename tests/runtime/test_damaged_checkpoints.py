import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.runtime import Checkpoints, DamagedCheckpointError, digests, load_tree, restore

ABSTRACT = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, keep_last=3) as checkpoints:
        for step in (1, 2):
            values = jax.random.normal(jax.random.key(step), (64, 64))
            checkpoints.save(step, {"w": values}, metrics={"top1": 1 / step})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(saved, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def files(step):
    return sorted(item for item in step.rglob("*") if item.is_file())


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def array_data(step):
    return max(files(step), key=lambda item: item.stat().st_size)


def test_sha256sum_agrees(saved):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", digests.NAME],
        cwd=saved / "2",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(files(saved / "2")) - 1  # all but itself


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_damage_to_any_file_is_noticed(saved, tmp_path, damage):
    for file in files(saved / "2"):
        name = file.relative_to(saved / "2")
        broken = tmp_path / "2"
        shutil.copytree(saved / "2", broken)
        damage(broken / name)
        with pytest.raises(DamagedCheckpointError, match="is damaged") as caught:
            digests.check(broken)
        # Damaged digests accuse another file.
        assert name.name == digests.NAME or str(name) in str(caught.value)
        shutil.rmtree(broken)


def test_a_file_too_few_and_one_too_many(folder):
    extra = folder / "2" / "state" / "stray"
    extra.write_text("")
    with pytest.raises(DamagedCheckpointError, match=r"state/stray is not in SHA256SUMS"):
        digests.check(folder / "2")
    extra.unlink()
    array_data(folder / "2").unlink()
    with pytest.raises(DamagedCheckpointError, match="is missing; use another checkpoint"):
        digests.check(folder / "2")


def test_orbax_alone_would_load_a_flipped_bit(folder):
    """What the digests are for; once Orbax notices it, this fails and they may go."""
    whole = load_tree(folder)
    flip_a_bit(array_data(folder / "2"))
    (folder / "2" / digests.NAME).unlink()
    assert not np.array_equal(load_tree(folder)["w"], whole["w"])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_readers_are_told_and_get_nothing_else(folder, damage):
    file = array_data(folder / "2")
    damage(file)
    name = file.relative_to(folder / "2")
    for read in (load_tree, lambda path: restore(path, ABSTRACT)):
        with pytest.raises(DamagedCheckpointError, match=rf"{name} is not what was saved"):
            read(folder)
    assert load_tree(folder, 1)["w"].shape == (64, 64)


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_run_goes_on_from_the_one_before(folder, damage):
    want = load_tree(folder, 1)["w"]
    file = array_data(folder / "2")
    damage(file)
    with Checkpoints(folder) as checkpoints:
        (sentence,) = checkpoints.damaged
        assert str(file.relative_to(folder / "2")) in sentence
        assert sentence.endswith("it is 2.damaged now, step 1 is used instead")
        assert checkpoints.all_steps() == [1]
        assert checkpoints.best_step() == 1
        np.testing.assert_array_equal(checkpoints.restore(ABSTRACT)["w"], want)
        checkpoints.save(2, {"w": want})
    assert sorted(item.name for item in folder.iterdir()) == ["1", "2", "2.damaged"]
    damage(array_data(folder / "2"))
    with Checkpoints(folder) as checkpoints:
        assert "it is 2.damaged.2 now" in checkpoints.damaged[0]


def test_an_older_step_is_checked_when_it_is_read(folder):
    flip_a_bit(array_data(folder / "1"))
    with Checkpoints(folder) as checkpoints:
        # Opening reads no further than the newest one that can be used.
        assert checkpoints.damaged == []
        checkpoints.restore(ABSTRACT)
        with pytest.raises(DamagedCheckpointError, match="1 is damaged"):
            checkpoints.restore(ABSTRACT, 1)


def test_a_lost_part_is_damage_too(folder):
    (folder / "2" / "state" / "manifest.ocdbt").unlink()
    with Checkpoints(folder) as checkpoints:
        assert "2 is damaged: state/manifest.ocdbt is missing" in checkpoints.damaged[0]
        assert checkpoints.all_steps() == [1]


def test_never_from_the_start_when_all_are_damaged(folder):
    for step in ("1", "2"):
        flip_a_bit(array_data(folder / step))
    for _ in range(2):
        with pytest.raises(DamagedCheckpointError, match=r"every checkpoint in .* is damaged"):
            Checkpoints(folder)
    assert sorted(item.name for item in folder.iterdir()) == ["1", "2"]
    # Nor after someone has deleted those that were not set aside.
    shutil.rmtree(folder / "1")
    (folder / "2").rename(folder / "2.damaged")
    with pytest.raises(DamagedCheckpointError, match=r"2\.damaged\); bring back a copy"):
        Checkpoints(folder)


def test_killed_before_its_digests_a_checkpoint_is_used(folder):
    (folder / "2" / digests.NAME).unlink()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.damaged == []
        assert checkpoints.latest_step() == 2
    # Or read as a whole, and set aside.
    cut_short(array_data(folder / "2"))
    with Checkpoints(folder) as checkpoints:
        assert "2 cannot be read" in checkpoints.damaged[0]
        assert checkpoints.latest_step() == 1


def test_saved_again_with_scores(folder):
    with Checkpoints(folder, keep_last=3) as checkpoints:
        checkpoints.save(3, {"w": jnp.ones((64, 64))}, notes={"rows": [1, 2.5]})
        assert checkpoints.metrics(3) is None
        assert checkpoints.notes(3) == {"rows": [1, 2.5]}
        checkpoints.save(3, {"w": jnp.ones((64, 64))}, metrics={"top1": 2.0}, replace=True)
        assert checkpoints.metrics(3) == {"top1": 2.0}
        assert checkpoints.best_step() == 3
    assert sorted(item.name for item in folder.iterdir()) == ["1", "2", "3"]


def test_the_old_one_stays_until_the_new_one_has_its_digests(folder, monkeypatch):
    write, seen = digests.write, []

    def spy(step):
        seen.append((folder / "2.unscored").is_dir())
        write(step)

    monkeypatch.setattr(digests, "write", spy)
    with Checkpoints(folder, keep_last=3) as checkpoints:
        checkpoints.save(2, {"w": jnp.ones((64, 64))}, metrics={"top1": 2.0}, replace=True)
    assert seen == [True]
    assert not (folder / "2.unscored").exists()


def test_killed_while_saving_again(folder):
    shutil.copytree(folder / "2", folder / "2.unscored")
    shutil.rmtree(folder / "2")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.all_steps() == [1, 2]
    shutil.copytree(folder / "2", folder / "2.unscored")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.all_steps() == [1, 2]
    assert sorted(item.name for item in folder.iterdir()) == ["1", "2"]
