import shutil
import sys

import numpy as np
import pytest
import tfds_builders

from condconv_jax import data


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = tfds_builders.TinyInsects(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder


def assert_holds(source, numbers, channels=3):
    """The order is TFDS' own, so that samples are recognised by their pixels."""
    expected = {tfds_builders.picture(number, channels).tobytes(): number % 3 for number in numbers}
    found = {}
    for sample in source:
        image = sample["image"]
        assert image.dtype == np.uint8
        assert image.shape == (6, 5, 3)
        if channels == 1:
            assert (image == image[..., :1]).all()
        found[image[..., :channels].tobytes()] = sample["label"]
    assert found == expected
    assert len(source) == len(numbers)


@pytest.mark.parametrize("dataset", ["tiny_insects", "tiny_insects:1.2.0", "tiny_insects:1.*.*"])
def test_prepared_data_is_read_by_name(data_dir, dataset):
    source = data.open_source("tfds", "train", path=str(data_dir), dataset=dataset)
    assert_holds(source, range(8))
    assert source.class_names == ("ant", "bee", "cat")
    assert source.name == "tiny_insects/1.2.0 train"


def test_prepared_data_is_read_from_the_folder_of_a_version(data_dir):
    path = str(data_dir / "tiny_insects" / "1.2.0")
    assert_holds(data.open_source("tfds", "train", path=path), range(8))
    part = data.open_source("tfds", "train[:25%]+train[25%:]", path=path)
    assert_holds(part, range(8))


@pytest.mark.parametrize("key", ["grey", "pixels"])
def test_grey_pictures_encoded_or_not_become_rgb(data_dir, key):
    source = data.open_tfds("train", path=str(data_dir), dataset="tiny_insects", image_key=key)
    assert_holds(source, range(8), channels=1)


def test_it_batches_like_any_source_without_tensorflow(data_dir):
    source = data.open_source("tfds", "train", path=str(data_dir), dataset="tiny_insects")
    transform = data.make_transforms(4, train=True)
    batch = next(data.train_batches(source, transform, batch_size=8, seed=0))
    assert sorted(batch["label"]) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert "tensorflow" not in sys.modules


def test_unlabelled_samples_are_refused(data_dir):
    source = data.open_source("tfds", "test", path=str(data_dir), dataset="tiny_insects")
    with pytest.raises(ValueError, match=r"tiny_insects/1.2.0 test has the label -1; wants 0\.\.2"):
        list(source)


@pytest.fixture
def train_file(data_dir, tmp_path):
    """The file of the training split, in a copy of the data."""
    shutil.copytree(data_dir, tmp_path / "copy")
    (file,) = (tmp_path / "copy").rglob("*train.array_record*")
    return file


def opened(train_file):
    return data.open_tfds("train", path=str(train_file.parent))


def test_a_flipped_bit_costs_one_record(train_file):
    intact = [sample["image"] for sample in opened(train_file)]
    content = bytearray(train_file.read_bytes())
    # TFDS stores a PNG as it is, and here two of each picture; any will do.
    content[content.index(b"IDAT") + 20] ^= 1
    train_file.write_bytes(content)
    source = opened(train_file)
    errors = {}
    for index in range(8):
        try:
            np.testing.assert_array_equal(source[index]["image"], intact[index])
        except data.CorruptSampleError as error:
            errors[index] = str(error)
    ((index, message),) = errors.items()
    assert f"record {index} of {train_file} is damaged (Corrupted Riegeli/records file" in message
    assert message.endswith("; copy the file again, or prepare the data anew")
    messages = []
    skipping = data.SkippingSource(source, 1, messages.append)
    np.testing.assert_array_equal(skipping[index]["image"], intact[(index + 1) % 8])
    assert len(messages) == 1
    with pytest.raises(data.CorruptSampleError, match=f"record {index} of "):
        list(data.eval_batches(source, data.make_transforms(4, train=False), batch_size=8))


@pytest.mark.parametrize("size", [0, 1000, 1 << 16, -1])
def test_a_file_cut_short_cannot_be_opened(train_file, size):
    train_file.write_bytes(train_file.read_bytes()[:size])
    with pytest.raises(OSError, match=rf"{train_file} cannot be opened \(.*\); copy the file") as e:
        opened(train_file)[0]
    assert not isinstance(e.value, FileNotFoundError)


def test_a_file_of_fewer_records_is_named(train_file):
    (other,) = train_file.parent.glob("*test.array_record*")
    other.replace(train_file)
    with pytest.raises(ValueError, match=f"{train_file} holds 2 records, dataset_info.json says 8"):
        opened(train_file)[2]


def test_a_missing_file_is_named(train_file):
    train_file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{train_file} is not there; copy the missing"):
        opened(train_file)[0]


def test_data_that_are_not_prepared(tmp_path, data_dir):
    with pytest.raises(FileNotFoundError) as caught:
        data.open_source("tfds", "train", path=str(tmp_path), dataset="tiny_insects")
    message = str(caught.value)
    assert f"open_tfds: 'tiny_insects' is not prepared in the data_dir {tmp_path};" in message
    assert f"data_dir='{tmp_path}', file_format='array_record').download_and_prepare()" in message
    with pytest.raises(FileNotFoundError, match=r"'tiny_insects:2.0.0' is not prepared in the"):
        data.open_source("tfds", "train", path=str(data_dir), dataset="tiny_insects:2.0.0")
    with pytest.raises(FileNotFoundError, match=r"is not the folder of one version of a prepared"):
        data.open_source("tfds", "train", path=str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot open 'a:b:c': .*; wants 'name', 'name:version'"):
        data.open_source("tfds", "train", path=str(tmp_path), dataset="a:b:c")
    with pytest.raises(ValueError, match=r"open_tfds: got neither a data set nor a path"):
        data.open_source("tfds", "train")


def test_data_prepared_in_another_format(data_dir, tmp_path):
    version = tmp_path / "tiny_insects" / "1.2.0"
    version.mkdir(parents=True)
    for file in (data_dir / "tiny_insects" / "1.2.0").iterdir():
        content = file.read_bytes()
        if file.suffix == ".json":
            content = content.replace(b"array_record", b"riegeli")
        (version / file.name).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"was prepared as riegeli; wants array_record or tfrecord; "
    ) as e:
        data.open_source("tfds", "train", path=str(tmp_path), dataset="tiny_insects")
    assert "tfds.builder('tiny_insects:1.2.0', data_dir=..., file_format='array_record')" in str(
        e.value
    )


def test_unknown_splits_and_features(data_dir):
    def opening(split="train", **options):
        return data.open_source(
            "tfds", split, path=str(data_dir), dataset="tiny_insects", **options
        )

    with pytest.raises(ValueError, match=r"split of tiny_insects/1.2.0 'tran'; .*mean 'train'\?"):
        opening("tran")
    with pytest.raises(ValueError, match=r"image feature of .* 'img'; choose one of 'depth', 'gre"):
        opening(image_key="img")
    with pytest.raises(ValueError, match=r"label feature of .* 'labels'; .*mean 'label'\?"):
        opening(label_key="labels")
    with pytest.raises(ValueError, match=r"'depth' of .* is float32 \(6, 5, 1\); wants uint8"):
        opening(image_key="depth")
    with pytest.raises(
        ValueError, match=r"'number' of .* is a Scalar; wants a ClassLabel; pass lab"
    ):
        opening(label_key="number")
