import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from write_tensorflow_checkpoint import NETWORKS, ODD_VALUES, checkpoint_values

from condconv_jax.crc32c import crc32c, masked_crc32c, masked_crc32c_of_rows
from condconv_jax.interop.leveldb_table import read_table
from condconv_jax.interop.tensor_bundle import list_tensors, read_tensors

DATA = Path(__file__).with_name("data")
SMALL = DATA / "small" / "model.ckpt-7"
SHARDED = DATA / "sharded" / "model.ckpt"


def varint(number):
    head = b""
    while number > 127:
        head += bytes([number % 128 + 128])
        number //= 128
    return head + bytes([number])


def entry(key, value, shared=0):
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def block(*entries, kind=0):
    contents = b"".join(entries) + bytes(4) + b"\1\0\0\0" + bytes([kind])
    return contents + masked_crc32c(contents).to_bytes(4, "little")


def handle(offset, contents):
    return varint(offset) + varint(len(contents) - 5)


def table(*blocks):
    """A table of the given data blocks, whose checksums are right whatever they hold."""
    data, handles = b"", []
    for number, contents in enumerate(blocks):
        handles.append(entry(bytes([number]), handle(len(data), contents)))
        data += contents
    index = block(*handles)
    footer = handle(len(data), block()) + handle(len(data), index)
    return data + index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


HEADER = entry(b"", b"\x08\x01\x1a\x02\x08\x01")


def tensor(name=b"x", dtype=1, shape=(2,), shard=0, offset=0, size=8, crc=0, more=b""):
    axes = b"".join(b"\x12" + varint(len(b"\x08" + varint(n))) + b"\x08" + varint(n) for n in shape)
    value = b"\x08" + varint(dtype) + b"\x12" + varint(len(axes)) + axes
    value += b"\x18" + varint(shard) + b"\x20" + varint(offset) + b"\x28" + varint(size)
    return entry(name, value + b"\x35" + crc.to_bytes(4, "little") + more)


@pytest.fixture
def bundle(tmp_path):
    """Writes a checkpoint of the given index, and 8 bytes of data."""

    def write(*entries, index=None):
        (tmp_path / "m.index").write_bytes(table(block(*entries)) if index is None else index)
        (tmp_path / "m.data-00000-of-00001").write_bytes(np.float32([1, 2]).tobytes())
        return tmp_path / "m"

    return write


# Each a byte longer than the one before.
LONG_KEYS = [tensor(b"x" * 2**16)]
LONG_KEYS += [entry(b"y", b"\x08\x01", 2**16 + n) for n in range(300)]
CRC = masked_crc32c(np.float32([1, 2]).tobytes())


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(SHARDED.parent, tmp_path / "copy")) / SHARDED.name


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, array in got.items():
        assert array.dtype == want[name].dtype
        np.testing.assert_array_equal(array, want[name])


def outcome(prefix):
    """The tensors, or the text of the error."""
    try:
        return read_tensors(prefix), ""
    except (ValueError, FileNotFoundError) as error:
        return {}, str(error)


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (bytes(range(32)), 0x46DD794E)],
)
def test_checksums_of_rfc_3720(data, crc):
    assert crc32c(data) == crc


@given(st.binary(max_size=80), st.sampled_from([0, 1000, 2**18 - 10]))
def test_checksums_bit_by_bit(data, zeros):
    # Whole chunks of zeros are advanced over by the same rule: any byte past them tells.
    message = bytes(zeros) + data
    register = crc32c(bytes(zeros)) ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(message) == register ^ 0xFFFFFFFF


@pytest.mark.parametrize("words", [0, 1, 2, 5])
def test_checksums_of_rows(words):
    rows = np.random.default_rng(words).integers(0, 2**32, (7, words), np.uint32)
    expected = [masked_crc32c(row.astype("<u4").tobytes()) for row in rows]
    assert masked_crc32c_of_rows(rows).tolist() == expected


def test_values_are_those_written():
    want = checkpoint_values(NETWORKS["small"])
    assert_same(read_tensors(SMALL), want)
    assert list_tensors(SMALL) == {k: (v.shape, v.dtype.name) for k, v in want.items()}


def test_every_dtype_in_two_data_files():
    want = ODD_VALUES | {"bfloat16": np.array([1.5, -3], jnp.bfloat16)}
    got = read_tensors(SHARDED)
    assert_same(got, want)
    assert all(array.flags.writeable for array in got.values())


def test_only_what_is_named():
    assert_same(read_tensors(SHARDED, ["half"]), {"half": ODD_VALUES["half"]})
    with pytest.raises(ValueError, match=r"none is named 'halve', 'x'; .*did you mean 'half'\?"):
        read_tensors(SHARDED, ["halve", "int8", "x"])


def test_object_based_checkpoint():
    prefix = DATA / "tensorflow2"
    key = "model/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    got = read_tensors(prefix)
    np.testing.assert_array_equal(got[key], np.arange(6).reshape(2, 3))
    assert got.keys() == {key, "save_counter/.ATTRIBUTES/VARIABLE_VALUE"}
    assert list_tensors(prefix)["_CHECKPOINTABLE_OBJECT_GRAPH"] == ((), "string")
    with pytest.raises(ValueError, match=r"_CHECKPOINTABLE_OBJECT_GRAPH' of .* is of dtype string"):
        read_tensors(prefix, ["_CHECKPOINTABLE_OBJECT_GRAPH"])


def test_partitioned_variable():
    prefix = DATA / "partitioned"
    assert list_tensors(prefix) == {"parts": ((4, 2), "float32"), "plain": ((3,), "float64")}
    np.testing.assert_array_equal(read_tensors(prefix, ["plain"])["plain"], [0, 1, 2])
    with pytest.raises(ValueError, match=r"'parts' of .* is a partitioned variable"):
        read_tensors(prefix)


@pytest.mark.parametrize("name", [".index", ".data-00000-of-00002", "/../checkpoint", "/.."])
def test_ways_to_name_a_checkpoint(name):
    prefix = str(SHARDED.parent if name.startswith("/") else SHARDED) + name.replace("/..", "")
    assert read_tensors(prefix).keys() == read_tensors(SHARDED).keys()


def test_the_checkpoint_file(copy):
    text = copy.with_name("checkpoint")
    text.write_text('model_checkpoint_path: "/elsewhere/model.ckpt"\n')
    assert "half" in list_tensors(copy.parent)  # the folder was moved
    text.write_text('model_checkpoint_path: "model.ckpt-8"\n')
    with pytest.raises(FileNotFoundError, match=r"model.ckpt-8.index does not exist; pass"):
        list_tensors(copy.parent)
    text.write_bytes(b"\xff\0" + b"\n" * 10_000)
    with pytest.raises(ValueError, match="names no model_checkpoint_path"):
        list_tensors(copy.parent)
    text.unlink()
    assert "half" in list_tensors(copy.parent)
    copy.with_name("other.index").touch()
    with pytest.raises(FileNotFoundError, match=r"pass one of model\.ckpt, other"):
        list_tensors(copy.parent)


def test_what_is_not_there(copy):
    with pytest.raises(FileNotFoundError, match=r"none.index does not exist; pass the prefix"):
        read_tensors(copy.with_name("none"))
    copy.with_name("model.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(FileNotFoundError, match="copy all 2 data files"):
        read_tensors(copy)
    assert_same(read_tensors(copy, ["int64"]), {"int64": ODD_VALUES["int64"]})


def test_format_v1():
    with pytest.raises(ValueError, match="format V1; restore it with TensorFlow"):
        read_tensors(DATA / "format_v1")


def test_another_file():
    with pytest.raises(ValueError, match="is no checkpoint of TensorFlow"):
        read_tensors(__file__)


@pytest.mark.parametrize("part", ["index", "data-00000-of-00002", "data-00001-of-00002"])
def test_damaged_bytes_are_noticed(copy, part):
    file = copy.with_name(f"{copy.name}.{part}")
    whole = file.read_bytes()
    want = read_tensors(copy)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        found, error = outcome(copy)
        assert "\n" not in error
        if error:
            assert str(file) in error
        else:
            # Some bytes say nothing: the metaindex, and the padding of the footer.
            assert part == "index"
            assert_same(found, want)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"copy (it|the file) again"):
            read_tensors(copy)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_with_the_right_checksums(tmp_path_factory, data):
    """Whatever the index says, the answer is an error, or no larger than the data files."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.copytree(SHARDED.parent, folder, dirs_exist_ok=True)
    entries = bytearray(
        b"".join(entry(*pair) for pair in read_table(SHARDED.with_name("model.ckpt.index")))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(entries) - 1))
        entries[position : position + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=12)
        )
    (folder / "model.ckpt.index").write_bytes(table(block(bytes(entries))))
    found, error = outcome(folder)
    assert "\n" not in error
    assert sum(array.nbytes for array in found.values()) <= 24 + 27


def test_the_table_of_these_tests(bundle):
    assert_same(read_tensors(bundle(HEADER, tensor(crc=CRC))), {"x": np.float32([1, 2])})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "has no header"),
        ([tensor()], "has no header"),
        ([entry(b"", b"\x08\x01\x10\x01")], "is big-endian"),
        ([entry(b"", b"\x08\x01\x1a\x02\x10\x02")], "wants a reader of version 2, this one is 1"),
        ([entry(b"", b"\x08\x00")], "it counts 0 data files"),
        ([entry(b"", b"\x08\xff\xff\xff\xff\x0f")], "it counts 4294967295 data files"),
        ([entry(b"", b"\x08")], "no number at byte 1"),
        ([entry(b"", b"\x0a\x7f")], "field 1 ends outside"),
        ([entry(b"", b"\x0b")], "a field has wire type 3"),
        ([entry(b"", b"\x0a\x01\x01")], "a field is not a number"),
        ([HEADER, tensor(), tensor()], "its keys are out of order"),
        ([HEADER, tensor(b"\xff\n", dtype=0)], r"'\\udcff\\n' is of dtype 0"),
        ([HEADER, tensor(shard=1)], "in data file 1 of 1"),
        ([HEADER, tensor(dtype=0)], "'x' is of dtype 0"),
        ([HEADER, tensor(shape=(1,) * 33, size=4)], "with 33 axes"),
        ([HEADER, tensor(shape=(2**64 - 1,))], "a field is not a number of 0 or more"),
        ([HEADER, tensor(shape=(0, 2**62, 2**62), size=0)], r"'x' of shape \(0, 4611"),
        ([HEADER, tensor(shape=(3,))], r"'x' of shape \(3,\) and float32 has 8 bytes"),
        ([HEADER, tensor(shape=(2**40,), size=2**42)], "8 bytes, too few for 'x'"),
        ([HEADER, tensor(offset=4, crc=CRC)], "8 bytes, too few for 'x'"),
        ([HEADER, tensor(crc=CRC), tensor(b"y", crc=CRC)], "8 bytes, too few for 'y'"),
        ([HEADER, tensor()], r"'x' in .* fails its checksum"),
        (
            [HEADER, tensor(dtype=11, shape=(8,))],
            "is of dtype number 11, which is not supported; leave it out",
        ),
        ([HEADER, b"\x01\x01\x00x"], "an entry ends outside its block"),
        ([HEADER, b"\x00\x7f\x00x"], "an entry ends outside its block"),
        ([HEADER, *LONG_KEYS], "names of more than 16777216 bytes; pass"),
    ],
)
def test_hostile_entries(bundle, entries, message):
    prefix = bundle(*entries)
    with pytest.raises(ValueError, match=message) as caught:
        read_tensors(prefix, None if b"y" in b"".join(entries) else ["x"])
    assert str(prefix) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hostile_tables(bundle):
    compressed = table(block(HEADER, kind=1))
    with pytest.raises(ValueError, match=r"m.index is compressed \(type 1\)"):
        list_tensors(bundle(index=compressed))
    one = block(HEADER)
    twice = block(*[entry(bytes([number]), handle(0, one)) for number in range(2)])
    footer = (handle(0, one) + handle(len(one), twice)).ljust(40, b"\0")
    with pytest.raises(ValueError, match="its blocks are out of order"):
        list_tensors(bundle(index=one + twice + footer + table()[-8:]))
    far = handle(0, one) + varint(2**63) + varint(2**63)
    with pytest.raises(ValueError, match="ends outside; copy it again"):
        list_tensors(bundle(index=one + far.ljust(40, b"\0") + table()[-8:]))
    with pytest.raises(ValueError, match="more than the 4194304 bytes that an index may have"):
        list_tensors(bundle(index=bytes(4 << 20) + table()))
