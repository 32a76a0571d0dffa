import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tfds_builders

from condconv_jax import data
from condconv_jax.data.tfrecord import TfrecordShards, index_records

# Five records written by TensorFlow: grain, grain/_src/python/testdata/
# morris_sequence_first_5.tfrecord.
MORRIS = (
    b"\x01\0\0\0\0\0\0\0\x01u\xdeA1\xc3\x0cJ\xd6"
    b"\x03\0\0\0\0\0\0\0\xb0\x99I\x0e1 1Y\xbe\xd8\xde"
    b"\x03\0\0\0\0\0\0\0\xb0\x99I\x0e2 1\xb4\xf24_"
    b"\x07\0\0\0\0\0\0\0\xbb\xd7\x9f\x111 2 1 1\x98\x86\xeb\xb8"
    b"\x0b\0\0\0\0\0\0\0\x86\x15\xf5\x041 1 1 2 2 1ai&\x98"
)
MORRIS_RECORDS = [b"1", b"1 1", b"2 1", b"1 2 1 1", b"1 1 1 2 2 1"]
MORRIS_PLACES = [0, 17, 36, 55, 78, 105]  # 16 bytes of framing around each


@pytest.fixture
def morris(tmp_path):
    file = tmp_path / "morris"
    file.write_bytes(MORRIS)
    return file


def test_what_tensorflow_wrote_is_read(morris):
    assert index_records(morris).tolist() == MORRIS_PLACES
    shards = TfrecordShards((morris,), (5,))
    assert [shards[index] for index in range(5)] == MORRIS_RECORDS
    assert (
        b"".join(map(tfds_builders.framed, MORRIS_RECORDS)) == MORRIS
    )  # what the other tests write with


@pytest.mark.parametrize("block", [1, 2, 3, 4096])
def test_headers_are_checked_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("condconv_jax.data.tfrecord._BLOCK", block)
    records = [bytes(length) for length in (0, 300, 70_000, 1, 0, 5)]
    parts, file = [tfds_builders.framed(record) for record in records], tmp_path / "shard"
    file.write_bytes(b"".join(parts))
    places = np.cumsum([0, *map(len, parts)])
    np.testing.assert_array_equal(index_records(file), places)
    content = bytearray(file.read_bytes())
    for record, place in enumerate(places[:-1]):
        content[place + 8] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"length of record {record} of .* does not fit its"):
            index_records(file)
        content[place + 8] ^= 1


def test_shards_follow_one_another_and_are_indexed_when_needed(tmp_path, monkeypatch):
    records = [bytes([number]) * number for number in range(12)]
    lengths, files, indexed = (3, 0, 4, 5), [], []
    for shard, length in enumerate(lengths):
        start = sum(lengths[:shard])
        files.append(tmp_path / str(shard))
        files[-1].write_bytes(b"".join(map(tfds_builders.framed, records[start : start + length])))

    def index(file):
        indexed.append(file.name)
        return index_records(file)

    monkeypatch.setattr("condconv_jax.data.tfrecord.index_records", index)
    shards = TfrecordShards(tuple(files), lengths)
    assert len(shards) == 12
    assert shards[6] == records[6]
    assert indexed == ["2"]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda k: shards[k % 12], range(120))) == records * 10
    assert sorted(indexed) == ["0", "2", "3"]  # each once, and never the empty one
    for outside in (-1, 12):
        with pytest.raises(IndexError, match=rf"index {outside} is outside its 12 records"):
            shards[outside]


@pytest.mark.parametrize(("size", "record"), [(1, 0), (14, 0), (16, 0), (20, 1), (50, 2), (104, 4)])
def test_truncated_shards_are_named(morris, size, record):
    morris.write_bytes(MORRIS[:size])
    with pytest.raises(
        ValueError, match=rf"morris ends in the middle of record {record}, at byte {size}; copy"
    ):
        TfrecordShards((morris,), (5,))[0]


@pytest.mark.parametrize(("place", "record"), [(0, 0), (7, 0), (11, 0), (36, 2), (85, 4)])
def test_damaged_framing_is_named(morris, place, record):
    morris.write_bytes(MORRIS[:place] + bytes([MORRIS[place] ^ 64]) + MORRIS[place + 1 :])
    with pytest.raises(
        ValueError, match=rf"length of record {record} of .*morris does not fit its checksum"
    ) as error:
        TfrecordShards((morris,), (5,))[4]
    assert not isinstance(error.value, data.CorruptSampleError)  # all that follows is lost


@pytest.mark.parametrize("place", [48, 49, 51, 54])
def test_damaged_records_are_named_and_the_others_read(morris, place):
    morris.write_bytes(MORRIS[:place] + bytes([MORRIS[place] ^ 1]) + MORRIS[place + 1 :])
    shards = TfrecordShards((morris,), (5,))
    with pytest.raises(
        data.CorruptSampleError, match=r"record 2 of .*morris is damaged: its check"
    ):
        shards[2]
    assert [shards[k] for k in (0, 1, 3, 4)] == [MORRIS_RECORDS[k] for k in (0, 1, 3, 4)]


def test_shards_that_are_not_what_is_said_of_them(morris):
    with pytest.raises(
        ValueError, match=r"morris holds 5 records, dataset_info\.json says 6; copy"
    ):
        TfrecordShards((morris,), (6,))[0]
    with pytest.raises(ValueError, match="got 1 files and 2 lengths; wants one length per file"):
        TfrecordShards((morris,), (2, 3))
    morris.unlink()
    with pytest.raises(FileNotFoundError, match=r"morris is not there; copy the missing file"):
        TfrecordShards((morris,), (5,))[0]


@pytest.fixture(scope="module")
def array_record_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("array_record")
    builder = tfds_builders.TinyInsects(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder


@pytest.fixture
def data_dir(array_record_dir, tmp_path):
    """The same records as TFRecord, as TFDS lays them out: train in two shards."""
    new = tmp_path / "prepared"
    place = "tiny_insects/1.2.0"
    tfds_builders.write_tfrecord(
        array_record_dir / place, new / place, {"train": (3, 5), "test": (2,)}
    )
    return new


@pytest.mark.parametrize("key", ["image", "grey", "pixels"])
def test_it_holds_what_array_record_holds(data_dir, array_record_dir, key):
    found, expected = (
        data.open_tfds("train", path=str(folder), dataset="tiny_insects", image_key=key)
        for folder in (data_dir, array_record_dir)
    )
    assert len(found) == len(expected) == 8
    assert found.class_names == expected.class_names
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other["label"]
        np.testing.assert_array_equal(one["image"], other["image"])
    assert "tensorflow" not in sys.modules


def test_it_batches_and_slices_like_any_source(data_dir):
    path = str(data_dir / "tiny_insects" / "1.2.0")
    source = data.open_source("tfds", "train[:50%]+train[50%:]", path=path)
    transform = data.make_transforms(4, train=True)
    batch = next(data.train_batches(source, transform, batch_size=8, seed=0, threads=3))
    assert sorted(batch["label"]) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_array_record_is_preferred(data_dir, array_record_dir):
    old = array_record_dir / "tiny_insects" / "1.2.0"
    new = data_dir / "tiny_insects" / "1.2.0"
    for file in old.glob("*array_record*"):
        (new / file.name).write_bytes(file.read_bytes())
    info = json.loads((old / "dataset_info.json").read_text())
    info |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (new / "dataset_info.json").write_text(json.dumps(info))
    for file in new.glob("*tfrecord*"):
        file.unlink()
    assert len(list(data.open_tfds("train", path=str(new)))) == 8


def test_a_damaged_record_is_passed_over_in_training(data_dir):
    file = data_dir / "tiny_insects" / "1.2.0" / "tiny_insects-train.tfrecord-00001-of-00002"
    content = bytearray(file.read_bytes())
    content[index_records(file)[2] + 40] ^= 1
    file.write_bytes(content)
    source = data.open_tfds("train", path=str(data_dir), dataset="tiny_insects")
    with pytest.raises(data.CorruptSampleError, match=r"record 2 of .*00001-of-00002 is damaged"):
        source[3 + 2]
    messages = []
    skipping = data.SkippingSource(source, 1, messages.append)
    np.testing.assert_array_equal(skipping[5]["image"], source[6]["image"])
    assert len(messages) == 1


def test_data_on_another_machine_are_refused(data_dir, monkeypatch):
    builder = tfds.builder_from_directory(str(data_dir / "tiny_insects" / "1.2.0"))
    template = type(builder.info.splits["train"].filename_template)
    monkeypatch.setattr(template, "sharded_filepaths", lambda *_: ["gs://bucket/train-0"])
    with pytest.raises(ValueError, match=r"open_tfds: gs://bucket/train-0 is not on this machine"):
        data.open_tfds("train", path=str(data_dir), dataset="tiny_insects")
