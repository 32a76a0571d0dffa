import gc
import itertools
import threading
import time

import numpy as np
import pytest
from PIL import Image

from condconv_jax import data

COUNT = 23  # a prime, so that no batch size or number of processes divides an epoch


@pytest.fixture
def numbered():
    """Pictures whose upper left pixel is their number and label."""
    numbers = np.arange(COUNT)
    images = np.zeros((COUNT, 6, 6, 3), np.uint8)
    images[:, 0, 0, 0] = numbers
    return data.ArraySource(images, numbers, tuple(map(str, numbers)), "numbered")


def noisy(sample, rng):
    """An augmentation whose every draw can be seen in its result."""
    image = rng.integers(0, 256, sample["image"].shape, dtype=np.uint8)
    image[0, 0] = sample["image"][0, 0]
    return {"image": image, "label": np.int32(sample["label"])}


def first(count, batches):
    result = list(itertools.islice(batches, count))
    batches.close()
    return result


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def stream(batches):
    return np.concatenate([batch["label"] for batch in batches])


def test_batches_have_the_promised_form(numbered):
    (batch,) = first(1, data.train_batches(numbered, noisy, batch_size=8, seed=0))
    assert batch["image"].shape == (8, 6, 6, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == (8,)
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])


def test_a_seed_fixes_order_and_augmentations(numbered):
    def run(seed):
        return first(5, data.train_batches(numbered, noisy, batch_size=8, seed=seed))

    assert_equal(run(3), run(3))
    assert (stream(run(3)) != stream(run(4))).any()
    # Not only the order: the same sample is augmented otherwise under another seed.
    same = [{b["label"][i]: b["image"][i] for b in run(s) for i in range(8)} for s in (3, 4)]
    shared = set(same[0]) & set(same[1])
    assert all((same[0][k] != same[1][k]).any() for k in shared)


def test_the_largest_seed_and_a_single_sample_work(numbered):
    one = data.SubsetSource(numbered, 5, 6, "one")
    (batch,) = first(1, data.train_batches(one, noisy, batch_size=4, seed=2**32 - 1))
    assert batch["label"].tolist() == [5, 5, 5, 5]
    assert len(np.unique(batch["image"], axis=0)) == 4  # augmented anew in every epoch


def test_a_process_may_have_one_row(numbered):
    whole = first(6, data.train_batches(numbered, noisy, batch_size=4, seed=1))
    options = {"batch_size": 4, "seed": 1, "process_index": 2, "process_count": 4}
    part = first(6, data.train_batches(numbered, noisy, **options))
    assert_equal(part, [{key: batch[key][2:3] for key in batch} for batch in whole])
    single = first(24, data.train_batches(numbered, noisy, batch_size=1, seed=1))
    np.testing.assert_array_equal(stream(single), stream(whole))


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_do_not_change_the_stream(numbered, threads):
    expected = first(8, data.train_batches(numbered, noisy, batch_size=6, seed=1))
    found = data.train_batches(numbered, noisy, batch_size=6, seed=1, threads=threads)
    assert_equal(first(8, found), expected)


@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize("threads", [0, 1, 4])
def test_pieces_do_not_change_the_batches(numbered, monkeypatch, rows, threads):
    def both():
        options = {"batch_size": 16, "process_index": 1, "process_count": 2, "threads": threads}
        train = data.train_batches(numbered, noisy, seed=1, start=5, **options)
        return [*first(9, train), *data.eval_batches(numbered, noisy, **options)]

    expected = both()
    monkeypatch.setattr("condconv_jax.data.pieces.PIECE_ROWS", rows)
    assert_equal(both(), expected)
    assert len({id(batch["image"]) for batch in both()}) == len(expected)


def test_a_batch_and_two_pieces_a_thread_are_read_ahead(numbered, monkeypatch):
    monkeypatch.setattr("condconv_jax.data.pieces.PIECE_ROWS", 4)
    reads = []

    def counting(sample, rng):
        reads.append(sample["label"])
        return noisy(sample, rng)

    def assert_read(count):
        deadline = time.monotonic() + 20
        while len(reads) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # for one more, if there were
        assert len(reads) == count

    batches = data.train_batches(numbered, counting, batch_size=20, seed=0, threads=3)
    assert_read(20 + 2 * 3 * 4)
    next(batches)
    assert_read(40 + 2 * 3 * 4)
    batches.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_samples_that_differ_in_form_are_refused(numbered, threads):
    def growing(sample, rng):
        wider = np.zeros((6, 6 + (sample["label"] == 3), 3), np.uint8)
        return {"image": wider, "label": np.int32(0)}

    def precise(sample, rng):
        kind = np.float64 if sample["label"] == 3 else np.float32
        return {"weight": kind(1)}

    def additional(sample, rng):
        return {"label": np.int32(0)} | ({"area": 1.0} if sample["label"] == 3 else {})

    for transform, message in (
        (growing, r"image of a sample is uint8 \(6, 7, 3\), of another one uint8 \(6, 6, 3\)"),
        (precise, r"weight of a sample is float64 \(\), of another one float32 \(\); wants a"),
        (additional, r"a sample has label, area, mask, another one label, mask; wants a tr"),
    ):
        with pytest.raises(ValueError, match=message):
            list(data.eval_batches(numbered, transform, batch_size=8, threads=threads))


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("start_step", [0, 2, 11])
def test_processes_share_the_global_batches_row_by_row(numbered, process_count, start_step):
    # Steps 0, 2 and 11 of 8 lie at the start, within the first epoch, and in the fourth.
    whole = first(15, data.train_batches(numbered, noisy, batch_size=8, seed=1))[start_step:]
    parts = [
        first(
            15 - start_step,
            data.train_batches(
                numbered,
                noisy,
                batch_size=8,
                seed=1,
                start=8 * start_step,
                process_index=index,
                process_count=process_count,
            ),
        )
        for index in range(process_count)
    ]
    together = [
        {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        for batches in zip(*parts, strict=True)
    ]
    assert_equal(together, whole)


def test_start_may_lie_anywhere(numbered):
    whole = stream(first(20, data.train_batches(numbered, noisy, batch_size=6, seed=1)))
    rest = first(3, data.train_batches(numbered, noisy, batch_size=6, seed=1, start=37))
    np.testing.assert_array_equal(stream(rest), whole[37 : 37 + 18])


def test_start_far_away_costs_nothing(numbered):
    far = COUNT * 10**12
    reads = []

    def counting(sample, rng):
        reads.append(sample["label"])
        return noisy(sample, rng)

    batches = data.train_batches(numbered, counting, batch_size=COUNT, seed=1, start=far, threads=0)
    (batch,) = first(1, batches)
    assert sorted(batch["label"]) == list(range(COUNT))
    assert len(reads) == COUNT


def test_every_epoch_is_another_permutation(numbered):
    epochs = stream(first(COUNT, data.train_batches(numbered, noisy, batch_size=5, seed=0)))
    epochs = epochs.reshape(5, COUNT)
    assert (np.sort(epochs) == np.arange(COUNT)).all()
    assert len(np.unique(epochs, axis=0)) == 5


def test_augmentations_differ_between_samples_and_epochs(numbered):
    batches = first(COUNT, data.train_batches(numbered, noisy, batch_size=2, seed=0))
    noise = np.concatenate([batch["image"][:, 1:] for batch in batches])
    assert len(np.unique(noise, axis=0)) == 2 * COUNT


@pytest.mark.parametrize("batch_size", [4, 8, 24, 64])
@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_evaluation_sees_every_sample_once(numbered, batch_size, process_count):
    parts = [
        list(
            data.eval_batches(
                numbered,
                noisy,
                batch_size=batch_size,
                process_index=index,
                process_count=process_count,
            )
        )
        for index in range(process_count)
    ]
    assert {len(part) for part in parts} == {-(-COUNT // batch_size)}
    rows = batch_size // process_count
    seen = []
    for batches in zip(*parts, strict=True):
        for batch in batches:
            assert batch["image"].shape == (rows, 6, 6, 3)
            assert batch["label"].dtype == np.int32
            assert batch["mask"].shape == (rows,)
            assert batch["mask"].dtype == np.float32
            assert set(batch["mask"].tolist()) <= {0.0, 1.0}
            assert not batch["image"][batch["mask"] == 0].any()
            assert not batch["label"][batch["mask"] == 0].any()
            seen += batch["label"][batch["mask"] == 1].tolist()
    assert seen == list(range(COUNT))  # in the source's order, across processes too


def test_evaluation_repeats_itself(numbered):
    def run(threads):
        return list(data.eval_batches(numbered, noisy, batch_size=8, threads=threads))

    assert_equal(run(0), run(3))


def test_the_embedded_set_trains_through_the_public_face():
    source = data.open_source("fashion_mnist", "train[:120]")
    transform = data.make_transforms(28, train=True)
    batches = first(2, data.train_batches(source, transform, batch_size=60, seed=0))
    np.testing.assert_array_equal(np.bincount(stream(batches)), [12] * 10)
    assert batches[0]["image"].shape == (60, 28, 28, 3)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_broken_picture_surfaces_and_ends_the_stream(tmp_path, threads):
    for number in range(6):
        file = tmp_path / "one" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
    (tmp_path / "one" / "3.png").write_bytes(b"broken")
    source = data.open_source("folder", "train", path=str(tmp_path))
    transform = data.make_transforms(8, train=False)
    for make in (data.train_batches, data.eval_batches):
        options = {"seed": 0} if make is data.train_batches else {}
        batches = make(source, transform, batch_size=2, threads=threads, **options)
        with pytest.raises(
            ValueError, match=r"cannot decode .*one.3\.png \(6 bytes\): .*; replace"
        ):
            list(batches)
        with pytest.raises(StopIteration):
            next(batches)


def reading_threads():
    return {t for t in threading.enumerate() if t.name.startswith("grain")}


def wait_until_gone(threads):
    deadline = time.monotonic() + 20
    while threads & reading_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads & reading_threads()


@pytest.mark.parametrize("used", [0, 1])
@pytest.mark.parametrize("how", ["close", "forget"])
def test_threads_end_with_the_iterator(numbered, used, how):
    before = reading_threads()
    batches = data.train_batches(numbered, noisy, batch_size=4, seed=0)
    for _ in range(used):
        next(batches)
    started = reading_threads() - before
    assert started
    if how == "close":
        batches.close()
        with pytest.raises(StopIteration):
            next(batches)
    else:
        del batches
        gc.collect()
    wait_until_gone(started)


@pytest.mark.parametrize("function", [data.train_batches, data.eval_batches])
def test_arguments_out_of_range_are_refused(numbered, function):
    name = function.__name__
    options = {"batch_size": 8} | ({"seed": 0} if function is data.train_batches else {})
    cases = [
        (
            {"batch_size": 6, "process_count": 4},
            r"batch_size 6 for 4 processes; wants a positive m",
        ),
        ({"batch_size": 0}, r"got batch_size 0"),
        (
            {"process_index": 2, "process_count": 2},
            r"got process_index 2 of process_count 2; wants",
        ),
        ({"process_index": -1}, r"got process_index -1"),
        ({"process_count": 0}, r"of process_count 0"),
        ({"threads": -1}, r"got threads -1; wants 0 or more"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            function(numbered, noisy, **(options | wrong))
    empty = data.ArraySource(np.zeros((0, 4, 4), np.uint8), np.zeros(0, int), ("a",), "nothing")
    with pytest.raises(
        ValueError, match=f"{name}: the source nothing is empty; wants at least one"
    ):
        function(empty, noisy, **options)


def test_seeds_and_starts_out_of_range_are_refused(numbered):
    for seed in (-1, 2**32):
        with pytest.raises(
            ValueError, match=rf"train_batches: got seed {seed}; wants 0\.\.2\*\*32"
        ):
            data.train_batches(numbered, noisy, batch_size=8, seed=seed)
    with pytest.raises(
        ValueError, match=r"train_batches: got start -8; wants the number of samples"
    ):
        data.train_batches(numbered, noisy, batch_size=8, seed=0, start=-8)
