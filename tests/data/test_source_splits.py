import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data.splits import parse_split, select


def source_of(count, name="all", class_names=("even", "odd")):
    numbers = np.arange(count)
    images = np.broadcast_to(numbers.astype(np.uint8)[:, None, None], (count, 2, 2))
    return data.ArraySource(images, numbers % 2, class_names, name)


def numbers(source):
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", range(20)),
        ("all[:5]", range(5)),
        ("all[15:]", range(15, 20)),
        ("all[3:7]", range(3, 7)),
        ("all[-4:]", range(16, 20)),
        ("all[:-4]", range(16)),
        ("all[:]", range(20)),
        ("all[:1_0]", range(10)),
        ("all[90%:]", range(18, 20)),
        ("all[:10%]", range(2)),
        ("all[-25%:]", range(15, 20)),
        ("all[:12.5%]", range(2)),
        ("all[50%:12]", range(10, 12)),
        ("all[18:] + all[:2]", [18, 19, 0, 1]),
    ],
)
def test_slices_select_what_tfds_would(text, expected):
    assert numbers(select(text, lambda split: source_of(20, split))) == list(expected)


@pytest.mark.parametrize("percent", [1, 33, 50, 66, 99])
@pytest.mark.parametrize("count", [75, 100, 101])
def test_percent_slices_neither_overlap_nor_leave_gaps(count, percent):
    below = select(f"all[:{percent}%]+all[{percent}%:]", lambda split: source_of(count, split))
    assert numbers(below) == list(range(count))


def test_a_split_named_twice_is_opened_once():
    opened = []

    def open_split(split):
        opened.append(split)
        return source_of(10, split)

    joined = select("a[:2]+b+a[8:]", open_split)
    assert opened == ["a", "b"]
    assert numbers(joined) == [0, 1, *range(10), 8, 9]


def test_parts_keep_classes_and_say_what_they_are():
    part = select("all[:1]", lambda split: source_of(10, split))
    assert part.class_names == ("even", "odd")
    assert part.num_classes == 2
    assert repr(part) == "<SubsetSource 'all[:1]': 1 samples, 2 classes>"


def test_sources_index_as_lists_do():
    joined = select("all[:3]+all[5:7]", lambda split: source_of(10, split))
    assert numbers(joined) == [0, 1, 2, 5, 6]
    assert joined[-1]["image"][0, 0, 0] == 6
    assert [int(sample["image"][0, 0, 0]) for sample in joined] == [0, 1, 2, 5, 6]
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} is outside its 5 samples"):
            joined[index]


@pytest.mark.parametrize("text", ["", "train[", "train[5]", "train[:5", "train[1:2:3]", "a b"])
def test_malformed_splits_are_refused(text):
    with pytest.raises(ValueError, match=r"parse_split: cannot read .* wants a name with an opt"):
        parse_split(text)


@pytest.mark.parametrize(
    ("text", "limit"), [("all[:21]", "20"), ("all[-21:]", "20"), ("all[:101%]", "100%")]
)
def test_bounds_outside_are_refused(text, limit):
    with pytest.raises(
        ValueError, match=rf"which has 20 samples; wants a bound of at most {limit}"
    ):
        select(text, lambda split: source_of(20, split))


@pytest.mark.parametrize("text", ["all[5:5]", "all[7:3]", "all[:0]", "all[:1%]"])
def test_slices_without_samples_are_refused(text):
    with pytest.raises(ValueError, match=r"select: the slice all\[.* holds none of its 20 samples"):
        select(text, lambda split: source_of(20, split))


def test_sources_of_other_classes_do_not_join():
    other = source_of(3, "b", ("odd", "even"))
    with pytest.raises(ValueError, match=r"a has the classes \(even, odd\), b has \(odd, even\)"):
        data.ConcatenatedSource([source_of(3, "a"), other], "both")
    with pytest.raises(ValueError, match=r"nothing got no sources"):
        data.ConcatenatedSource([], "nothing")


def test_open_source_names_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"unknown source 'fashon_mnist'.*mean 'fashion_mnist'?"):
        data.open_source("fashon_mnist", "train")
    with pytest.raises(ValueError, match=r"option of the source 'npz' 'label'; .*mean 'labels'?"):
        data.open_source("npz", "train", path="somewhere", label="fine")
    with pytest.raises(ValueError, match=r"unknown split 'tests'; choose one of 'test', 'train'"):
        data.open_source("fashion_mnist", "tests")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4), np.float32), [0, 1], "has images float32"),
        (np.zeros((2, 4), np.uint8), [0, 1], r"has images uint8 \(2, 4\); wants uint8 \(n, h, w\)"),
        (np.zeros((2, 4, 4, 2), np.uint8), [0, 1], "has images uint8"),
        (np.zeros((2, 4, 4), np.uint8), [0], "has labels int64 .* for 2 pictures"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], "has labels float64"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], r"has labels 0\.\.2 for 2 classes; wants 0\.\.1"),
        (np.zeros((2, 4, 4), np.uint8), [-1, 0], r"has labels -1\.\.0 for 2 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=f"ArraySource: mine {message}"):
        data.ArraySource(images, np.array(labels), ("a", "b"), "mine")
