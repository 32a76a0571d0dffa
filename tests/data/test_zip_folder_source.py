import os
import shutil
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from condconv_jax import data


def pack(folder, archive, prefix="", method=zipfile.ZIP_STORED, last=()):
    """Writes a folder's files, folders included, into an archive; those of `last` at its end."""
    with zipfile.ZipFile(archive, "w", method) as opened:
        files = sorted(folder.rglob("*"), key=lambda file: file.name in last)
        for file in files:
            opened.write(file, prefix + file.relative_to(folder).as_posix())
    return str(archive)


def assert_same(zipped, unzipped):
    assert zipped.files == unzipped.files
    assert zipped.class_names == unzipped.class_names
    np.testing.assert_array_equal(zipped.labels, unzipped.labels)
    assert len(zipped) == len(unzipped)
    for one, other in zip(zipped, unzipped, strict=True):
        assert one["label"] == other["label"]
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "insects/"])
def test_an_archive_is_the_folder_it_was_made_of(class_folder, tmp_path, method, prefix):
    nested = class_folder / "bee" / "deep" / "er"
    nested.mkdir(parents=True)
    shutil.copy(class_folder / "bee" / "1.png", nested / "1.PNG")
    # A picture beside the class folders is passed over; beside those in a prefix folder it would
    # make that a class.
    beside = "notes.txt" if prefix else "a.png"
    for hidden in ("ant/.a.png", ".dog/a.png", "ant/notes.txt", "ant/.deep/a.png", beside):
        file = class_folder / hidden
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"not a picture")
    path = pack(class_folder, tmp_path / "all.ZIP", prefix, method, last=("0.png", "bee"))
    unpacked = data.open_folder("train", path=str(class_folder))
    assert_same(data.open_folder("train", path=path), unpacked)
    part = data.open_source("folder", "train[:50%]", path=path)
    assert len(part) == 6


@pytest.mark.parametrize("prefix", ["", "insects/"])
def test_splits_in_an_archive(class_folder, tmp_path, prefix):
    root = tmp_path / "splits"
    shutil.copytree(class_folder, root / "train")
    shutil.copytree(class_folder / "bee", root / "val" / "bee")
    path = pack(root, tmp_path / "splits.zip", prefix)
    for split in ("train", "val"):
        assert_same(data.open_folder(split, path=path), data.open_folder(split, path=str(root)))
    with pytest.raises(ValueError, match=r"split of .*splits.zip.* 'vall'; .*did you mean 'val'"):
        data.open_folder("vall", path=path)
    shutil.copytree(class_folder / "cat", root / "val" / "dog")
    path = pack(root, tmp_path / "splits.zip", prefix)
    with pytest.raises(ValueError, match=r"splits\.zip.*val has class folders that .* lacks: dog"):
        data.open_folder("val", path=path)


def test_a_single_class_or_split_is_no_prefix(class_folder, tmp_path):
    one = pack(class_folder / "ant", tmp_path / "one.zip", "ant/")
    assert data.open_folder("train", path=one).class_names == ("ant",)
    only_train = pack(class_folder, tmp_path / "train.zip", "train/")
    source = data.open_folder("train", path=only_train)
    assert source.class_names == ("ant", "bee", "cat")
    assert source.folder == "train"


@pytest.mark.parametrize("prefix", ["./", "./insects/", "insects/./"])
def test_a_packer_may_keep_the_current_folder(class_folder, tmp_path, prefix):
    with zipfile.ZipFile(tmp_path / "dot.zip", "w") as opened:
        for file in class_folder.rglob("*.png"):
            opened.writestr(prefix + file.relative_to(class_folder).as_posix(), file.read_bytes())
    unpacked = data.open_folder("train", path=str(class_folder))
    assert_same(data.open_folder("train", path=str(tmp_path / "dot.zip")), unpacked)


def test_what_macos_adds_is_no_class(class_folder, tmp_path):
    path = pack(class_folder, tmp_path / "mac.zip", "insects/")
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("__MACOSX/insects/ant/._0.png", b"not a picture")
    assert len(data.open_folder("train", path=path)) == 12


def test_threads_read_it_at_once(class_folder, tmp_path):
    path = pack(class_folder, tmp_path / "all.zip", method=zipfile.ZIP_DEFLATED)
    source = data.open_folder("train", path=path)
    expected = [sample["image"].tobytes() for sample in source]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: source[i % 12]["image"].tobytes(), range(600)))
    assert found == expected * 50


def test_the_file_is_closed_with_the_source(class_folder, tmp_path):
    source = data.open_folder("train", path=pack(class_folder, tmp_path / "all.zip"))
    file = source._reader._file
    assert os.fstat(file).st_size > 0
    del source
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_members_are_named(class_folder, tmp_path, method):
    path = pack(class_folder, tmp_path / "all.zip", method=method)
    with zipfile.ZipFile(path) as opened:
        member = opened.getinfo("bee/1.png")
    content = bytearray((tmp_path / "all.zip").read_bytes())
    name_size = struct.unpack_from("<H", content, member.header_offset + 26)[0]
    middle = member.header_offset + 30 + name_size + member.compress_size // 2
    content[middle : middle + 4] = bytes(255 - byte for byte in content[middle : middle + 4])
    (tmp_path / "all.zip").write_bytes(content)
    source = data.open_folder("train", path=path)
    index = source.files.index("bee/1.png")
    with pytest.raises(data.CorruptSampleError, match=r"all\.zip/bee/1\.png is damaged: .*; copy"):
        source[index]
    content[member.header_offset] = 0
    (tmp_path / "all.zip").write_bytes(content)
    with pytest.raises(data.CorruptSampleError, match=r"1\.png is damaged: there is no member at"):
        source[index]
    messages = []
    skipping = data.SkippingSource(source, 1, messages.append)
    assert len(list(skipping)) == 12
    assert len(messages) == 1


def test_a_corrupt_picture_in_an_archive_is_named(class_folder, tmp_path):
    (class_folder / "bee" / "1.png").write_bytes(b"not a picture at all")
    source = data.open_folder("train", path=pack(class_folder, tmp_path / "all.zip"))
    with pytest.raises(data.CorruptSampleError, match=r"cannot decode .*all\.zip/bee/1\.png \(20"):
        source[source.files.index("bee/1.png")]


def test_archives_that_cannot_be_read(class_folder, tmp_path):
    packed = pack(class_folder, tmp_path / "lzma.zip", method=zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match=r"open_folder: .*png in .*lzma\.zip is packed by the met"):
        data.open_folder("train", path=packed)
    path = tmp_path / "secret.zip"
    pack(class_folder, path)
    content = path.read_bytes()
    # Bit 0 of the flags, 8 bytes into each entry of the central directory.
    for member in range(content.count(b"PK\x01\x02")):
        at = [i for i in range(len(content)) if content.startswith(b"PK\x01\x02", i)][member]
        content = content[: at + 8] + b"\x01" + content[at + 9 :]
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"secret\.zip is encrypted; wants members that are stored"
    ):
        data.open_folder("train", path=str(path))
    (tmp_path / "cut.zip").write_bytes(content[:1000])
    with pytest.raises(ValueError, match=r"cut\.zip cannot be read as a zip archive: .*; copy it"):
        data.open_folder("train", path=str(tmp_path / "cut.zip"))
    empty = tmp_path / "empty"
    (empty / "one").mkdir(parents=True)
    (empty / "two").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no picture in the 2 class folders of .*empty\.zip"):
        data.open_folder("train", path=pack(empty, tmp_path / "empty.zip"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip does not exist"):
        data.open_folder("train", path=str(tmp_path / "nowhere.zip"))
