import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from condconv_jax import data

COUNT = 11


class Numbered(data.NamedSource):
    """Samples whose pixels and label are their number; some are damaged."""

    name = "numbered"
    class_names = tuple(map(str, range(COUNT)))

    def __init__(self, damaged=(), error=data.CorruptSampleError):
        self.damaged, self.error = set(damaged), error

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index in self.damaged:
            raise self.error(f"cannot decode {index}.jpg")
        return {"image": np.full((4, 4, 3), index, np.uint8), "label": index}


def keep(sample, rng):
    return {"image": sample["image"], "label": np.int32(sample["label"])}


def train_labels(source, start=0, **options):
    batches = data.train_batches(source, keep, batch_size=4, seed=3, start=start, **options)
    labels = np.concatenate([next(batches)["label"] for _ in range(6)])
    batches.close()
    return labels


def test_the_next_intact_sample_takes_the_place():
    messages = []
    source = data.SkippingSource(Numbered({3, 4, 10}), 3, messages.append)
    labels = [source[index]["label"] for index in range(COUNT)]
    assert labels == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 0]  # from the end on to the beginning
    assert source[-1]["label"] == 0
    assert len(messages) == 3
    assert (source.name, source.num_classes, len(source)) == ("numbered", COUNT, COUNT)


def test_each_damaged_sample_is_reported_once_by_name():
    messages = []
    source = data.SkippingSource(Numbered({3, 7}), 5, messages.append)
    for _ in range(3):
        list(source)
    assert messages == [
        f"damaged sample {n} of at most 5 passed over: cannot decode {name}.jpg"
        for n, name in ((1, 3), (2, 7))
    ]


def test_the_stream_of_training_is_replaced_in_place():
    intact = train_labels(Numbered())
    replaced = np.select([intact == 3, intact == 10], [4, 0], intact)
    assert (replaced != intact).any()

    def skipping():
        return data.SkippingSource(Numbered({3, 10}), 2, lambda message: None)

    for threads in (0, 3):
        np.testing.assert_array_equal(train_labels(skipping(), threads=threads), replaced)
    # A run that was continued, and the processes of a larger one, see the same samples.
    np.testing.assert_array_equal(train_labels(skipping(), start=8)[:16], replaced[8:])
    halves = [train_labels(skipping(), process_index=p, process_count=2) for p in (0, 1)]
    both = np.concatenate([half.reshape(-1, 2) for half in halves], axis=1).ravel()
    np.testing.assert_array_equal(both[:24], replaced)


def test_evaluation_masks_damaged_samples():
    messages = []
    source = data.SkippingSource(Numbered({0, 4}), 2, messages.append)
    labels, masks = [], []
    for batch in data.eval_batches(source, keep, batch_size=4):
        assert not batch["image"][batch["mask"] == 0].any()
        labels += batch["label"].tolist()
        masks += batch["mask"].tolist()
    assert masks == [0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0]
    assert labels == [0, 1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 0]
    assert len(messages) == 2


def test_more_than_the_limit_is_an_error():
    source = data.SkippingSource(Numbered({2, 5, 8}), 2, lambda message: None)
    assert source[5]["label"] == 6
    assert source[2]["label"] == 3
    with pytest.raises(
        ValueError,
        match=r"numbered has more than 2 damaged samples, .*; the last: cannot decode 8\.jpg; rep",
    ) as error:
        source[8]
    assert str(error.value).endswith("; repair the data, or raise the limit")
    assert not isinstance(error.value, data.CorruptSampleError)  # nothing may pass over this one
    with pytest.raises(ValueError, match="more than 2 damaged samples"):
        train_labels(data.SkippingSource(Numbered({2, 5, 8}), 2, lambda message: None))


def test_a_limit_of_none_keeps_the_first_error():
    source = data.SkippingSource(Numbered({3}), 0, lambda message: None, limit_name="max_corrupt")
    with pytest.raises(
        data.CorruptSampleError, match=r"^cannot decode 3\.jpg; or raise max_corrupt$"
    ):
        source[3]
    with pytest.raises(data.CorruptSampleError, match=r"^cannot decode 3\.jpg"):
        list(data.eval_batches(source, keep, batch_size=4))


@pytest.mark.parametrize("error", [FileNotFoundError, ValueError, OSError])
def test_other_errors_stay_errors(error):
    messages = []
    source = data.SkippingSource(Numbered({3}, error), 5, messages.append)
    with pytest.raises(error, match=r"cannot decode 3\.jpg"):
        source[3]
    assert not messages


def test_arguments_that_make_no_sense():
    with pytest.raises(ValueError, match=r"SkippingSource: got limit -1 for numbered; wants the"):
        data.SkippingSource(Numbered(), -1, print)
    everything = data.SkippingSource(Numbered(range(COUNT)), COUNT, lambda message: None)
    with pytest.raises(ValueError, match=r"SkippingSource: all 11 samples of numbered are damaged"):
        everything[0]


def test_threads_count_together():
    messages, damaged = [], range(1, COUNT, 2)
    source = data.SkippingSource(Numbered(damaged), len(damaged), messages.append)
    barrier = threading.Barrier(8)

    def read(_):
        barrier.wait(timeout=30)
        return [source[index]["label"] for index in range(COUNT)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, range(8)))
    assert all(result == results[0] for result in results)
    assert len(messages) == len(set(messages)) == len(damaged)


def test_truncated_files_of_a_folder_are_passed_over(class_folder):
    whole = data.open_folder("train", path=str(class_folder))
    broken = whole.files.index("bee/1.png")
    file = class_folder / "bee" / "1.png"
    file.write_bytes(file.read_bytes()[:60])
    messages = []
    source = data.SkippingSource(whole, 1, messages.append)
    np.testing.assert_array_equal(source[broken]["image"], whole[broken + 1]["image"])
    assert len(messages) == 1
    assert str(file) in messages[0]
    file.unlink()
    with pytest.raises(FileNotFoundError, match="was deleted since"):
        source[broken]
