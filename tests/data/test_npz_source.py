import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from condconv_jax import data


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def joined(files):
    offsets = np.cumsum([0] + [len(file) for file in files])
    return np.frombuffer(b"".join(files), np.uint8), offsets


def write_strips(file, images, labels, rows=3):
    blocks = [images[i : i + rows] for i in range(0, len(images), rows)]
    strips = [encoded(b.reshape(-1, b.shape[2], 3), "WEBP", lossless=True) for b in blocks]
    content, offsets = joined(strips)
    np.savez_compressed(
        file,
        strips=content,
        offsets=offsets,
        fine=labels.astype(np.uint8),
        coarse=(labels // 2).astype(np.uint8),
        fine_names=np.array(["a", "b", "c"]),
        coarse_names=np.array(["low", "high"]),
    )


def assert_same(source, images, labels):
    assert len(source) == len(images)
    for sample, image, label in zip(source, images, labels, strict=True):
        np.testing.assert_array_equal(sample["image"], image)
        assert sample["label"] == label


def test_strips_of_several_files(tmp_path, pictures):
    images, labels = pictures
    write_strips(tmp_path / "train_a.npz", images[:6], labels[:6])
    write_strips(tmp_path / "train_b.npz", images[6:10], labels[6:10])
    write_strips(tmp_path / "test.npz", images[10:], labels[10:])
    train = data.open_source("npz", "train", path=str(tmp_path))
    assert_same(train, images[:10], labels[:10])
    assert train.class_names == ("a", "b", "c")
    assert_same(data.open_source("npz", "test", path=str(tmp_path)), images[10:], labels[10:])
    assert_same(
        data.open_source("npz", "train[80%:]", path=str(tmp_path)), images[8:10], labels[8:10]
    )
    coarse = data.open_source("npz", "train", path=str(tmp_path), labels="coarse")
    assert_same(coarse, images[:10], labels[:10] // 2)
    assert coarse.class_names == ("low", "high")


def test_encoded_files_one_after_another(tmp_path, pictures):
    images, labels = pictures
    content, offsets = joined([encoded(image) for image in images])
    np.savez(tmp_path / "val.npz", jpeg=content, offsets=offsets, labels=labels, names=["a"] * 3)
    source = data.open_source("npz", "val", path=str(tmp_path))
    assert_same(source, images, labels)


def test_plain_arrays_with_all_splits_in_one_file(tmp_path, pictures):
    images, labels = pictures
    file = tmp_path / "mine.npz"
    np.savez(
        file,
        train_x=images[:9],
        train_y=labels[:9],
        test_x=images[9:11, ..., 0],
        test_y=labels[9:11],
    )
    assert_same(data.open_source("npz", "train", path=str(file)), images[:9], labels[:9])
    test = data.open_source("npz", "test", path=str(file))
    grey = np.repeat(images[9:11, ..., :1], 3, axis=3)
    assert_same(test, grey, labels[9:11])
    # Named by number, and as many as all splits together need: test has no picture of class 2.
    assert test.class_names == ("0", "1", "2")


@pytest.mark.parametrize("keys", [("x", "y"), ("train_x", "train_y")])
def test_plain_arrays_in_a_file_per_split(tmp_path, pictures, keys):
    images, labels = pictures
    np.savez(tmp_path / "train.npz", **dict(zip(keys, pictures, strict=True)))
    assert_same(data.open_source("npz", "train", path=str(tmp_path)), images, labels)


def test_classes_without_names_are_those_of_all_files_of_the_folder(tmp_path, pictures):
    """A split, or a part of one, may have no picture of the last class."""
    images, labels = pictures
    np.savez(tmp_path / "train_0.npz", x=images[:6], y=labels[:6], coarse=labels[:6] // 2)
    np.savez(tmp_path / "train_1.npz", x=images[6:8], y=labels[6:8], coarse=labels[6:8] // 2)
    np.savez(tmp_path / "val.npz", val_x=images[9:11], val_y=labels[9:11], val_coarse=[0, 0])
    np.savez(tmp_path / "other.npz", numbers=np.full(3, 99), train_z=np.full(3, 99))
    for split, kept in (("train", slice(8)), ("val", slice(9, 11))):
        source = data.open_source("npz", split, path=str(tmp_path))
        assert_same(source, images[kept], labels[kept])
        assert source.class_names == ("0", "1", "2")
        coarse = data.open_source("npz", split, path=str(tmp_path), labels="coarse")
        assert coarse.class_names == ("0", "1")


def test_coarse_labels_of_every_layout_and_none(tmp_path, pictures):
    images, labels = pictures
    coarse = labels // 2
    files = {
        "plain": {"x": images, "y": labels, "coarse": coarse, "coarse_names": ["low", "high"]},
        "splits": {"train_x": images, "train_y": labels, "train_coarse": coarse},
        "none": {"x": images, "y": labels},
    }
    data_of, offsets = joined([encoded(image) for image in images])
    files["jpeg"] = {"jpeg": data_of, "offsets": offsets, "labels": labels, "coarse": coarse}
    for name, arrays in files.items():
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "train.npz", **arrays)
    for name in ("plain", "splits", "jpeg"):
        found = data.open_source("npz", "train", path=str(tmp_path / name), labels="coarse")
        assert_same(found, images, coarse)
    file = str(tmp_path / "splits" / "train.npz")
    assert_same(data.open_source("npz", "train", path=file, labels="coarse"), images, coarse)
    with pytest.raises(ValueError, match=r"train\.npz of .* and no coarse; pass labels='fine'"):
        data.open_source("npz", "train", path=str(tmp_path / "none"), labels="coarse")


def test_a_broken_picture_is_named(tmp_path, pictures):
    images, labels = pictures
    files = [encoded(image) for image in images]
    files[4] = files[4][:60]
    content, offsets = joined(files)
    np.savez(tmp_path / "train.npz", jpeg=content, offsets=offsets, labels=labels)
    source = data.open_source("npz", "train", path=str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot decode picture 4 of train.npz of .*\(60 bytes\)"):
        source[4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros(3)}, "holds the arrays images; wants one of the layouts"),
        ({}, r"holds the arrays \(none\); wants one of the layouts"),
        ({"x": np.array([{}]), "y": np.zeros(1)}, "as an .npz of plain arrays.*without object arr"),
        (
            {
                "jpeg": np.zeros(9, np.uint8),
                "offsets": np.array([0, 8]),
                "labels": np.zeros(1, int),
            },
            "wants uint8 .bytes,. and rising integers .n . 1,. from 0 to the number of bytes",
        ),
        (
            {
                "jpeg": np.zeros(9, np.uint8),
                "offsets": np.array([0, 8, 5, 9], np.uint64),
                "labels": np.zeros(3, int),
            },
            "wants uint8 .bytes,. and rising integers",
        ),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.open_source("npz", "train", path=str(tmp_path))


def test_strips_that_are_no_stack_of_squares_are_refused(tmp_path):
    def write(*shapes):
        strips, offsets = joined([encoded(np.zeros((*s, 3), np.uint8)) for s in shapes])
        fine = np.zeros(2, np.uint8)
        np.savez(tmp_path / "train.npz", strips=strips, offsets=offsets, fine=fine)

    write((11, 5))
    with pytest.raises(ValueError, match=r"strip 0 of train.npz .* is 11 rows by 5 columns"):
        data.open_npz("train", path=str(tmp_path))
    write((5, 5), (6, 6))
    with pytest.raises(ValueError, match=r"are \[5, 6\] columns wide; wants pictures of one size"):
        data.open_npz("train", path=str(tmp_path))


def test_places_without_the_split_are_refused(tmp_path, pictures):
    with pytest.raises(FileNotFoundError, match=r"open_npz: .*nowhere does not exist; pass the"):
        data.open_npz("train", path=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"open_npz: got no path"):
        data.open_npz("train")
    with pytest.raises(ValueError, match=r"no train.npz and no train_\*.npz, but no .npz file"):
        data.open_npz("train", path=str(tmp_path))
    np.savez(tmp_path / "val.npz", x=pictures[0], y=pictures[1])
    with pytest.raises(ValueError, match=r"but val.npz; pass a split that is there"):
        data.open_npz("train", path=str(tmp_path))
    with pytest.raises(ValueError, match=r"pass its folder as path and split='val'"):
        data.open_npz("val", path=str(tmp_path / "val.npz"))
    np.savez(tmp_path / "all.npz", train_x=pictures[0], train_y=pictures[1])
    with pytest.raises(
        ValueError, match=r"unknown split of .*all.npz 'test'; choose one of 'train'"
    ):
        data.open_npz("test", path=str(tmp_path / "all.npz"))
    with pytest.raises(ValueError, match=r"unknown kind of labels 'course'.*did you mean 'coarse'"):
        data.open_npz("val", path=str(tmp_path), labels="course")


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "train.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match=r"cannot read .*train.npz as an .npz of plain arrays"):
        data.open_npz("train", path=str(tmp_path))
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "val.npz")
    with pytest.raises(ValueError, match=r"cannot read .*val.npz as an .npz of plain arrays"):
        data.open_npz("val", path=str(tmp_path))


def test_cifar100_is_lossless_and_balanced(real_data):
    folder = str(real_data / "cifar100")
    test = data.open_source("npz", "test", path=folder)
    assert isinstance(test, data.ArraySource)
    # The digest of the decoded pixels that the data set's README states.
    assert hashlib.sha256(test.images.tobytes()).hexdigest() == (
        "90565194ea14f1054863464d9208db2d375f7406034a52a5292d4b08a12b4cba"
    )
    assert test.images.shape == (10000, 32, 32, 3)
    assert test.num_classes == 100
    assert test.class_names[:2] == ("apple", "aquarium_fish")
    assert (np.sort(test.labels.reshape(-1, 100)) == np.arange(100)).all()
    coarse = data.open_source("npz", "test", path=folder, labels="coarse")
    assert isinstance(coarse, data.ArraySource)
    np.testing.assert_array_equal(np.bincount(coarse.labels), [500] * 20)


@pytest.mark.slow  # counts 50,000 pictures
def test_cifar100_training_files_are_joined(real_data):
    train = data.open_source("npz", "train", path=str(real_data / "cifar100"))
    assert isinstance(train, data.ConcatenatedSource)
    assert len(train) == 50000
    pixels = np.concatenate([vars(part)["images"] for part in train.sources]).reshape(-1, 3)
    statistics = data.STATISTICS["cifar100"]
    levels = np.arange(256) / 255
    for channel in range(3):  # from counts per level: the pixels as floats would take 1.2 GB
        share = np.bincount(pixels[:, channel], minlength=256) / len(pixels)
        mean = share @ levels
        assert mean == pytest.approx(statistics.mean[channel], abs=1e-4)
        assert np.sqrt(share @ (levels - mean) ** 2) == pytest.approx(
            statistics.std[channel], abs=1e-4
        )


def test_tiny_imagenet_50_decodes_as_rgb(real_data):
    val = data.open_source("npz", "val", path=str(real_data / "tiny-imagenet-50"))
    assert isinstance(val, data.EncodedSource)
    assert len(val) == 2500
    assert val.class_names[0] == "goldfish"
    assert val.class_names[49] == "coral reef"
    np.testing.assert_array_equal(np.bincount(val.labels), [50] * 50)
    grey = 0
    for index, sample in enumerate(val):
        assert sample["image"].shape == (64, 64, 3)
        file = val.data[val.offsets[index] : val.offsets[index + 1]]
        if Image.open(io.BytesIO(file.tobytes())).mode == "L":
            assert (sample["image"] == sample["image"][..., :1]).all()
            grey += 1
    assert grey == 44  # as the data set's README counts them
