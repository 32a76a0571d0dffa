import os
import shutil

import numpy as np
import pytest
from PIL import Image

from condconv_jax import data


def by_content(source):
    return {(sample["image"].tobytes(), sample["label"]) for sample in source}


def test_classes_are_sorted_and_every_picture_is_there(class_folder, pictures):
    source = data.open_source("folder", "train", path=str(class_folder))
    assert source.class_names == ("ant", "bee", "cat")
    expected = {(image.tobytes(), label) for image, label in zip(*pictures, strict=True)}
    assert by_content(source) == expected
    assert len(source) == 12


def test_order_is_fixed_by_the_names_alone(class_folder, tmp_path):
    first = data.open_folder("train", path=str(class_folder))
    shutil.copytree(class_folder, tmp_path / "copy")
    second = data.open_folder("train", path=str(tmp_path / "copy"))
    assert first.files == second.files
    # This order must never change, or runs could not be repeated. From coreutils:
    # for f in ant/0.png bee/1.png ...; do echo $(printf $f | b2sum -l 64) $f; done | sort
    assert first.files[:3] == ("cat/5.png", "bee/10.png", "ant/3.png")
    assert first.labels[:3].tolist() == [2, 1, 0]


def test_slices_hold_a_mixture_of_classes(tmp_path):
    for label in range(4):
        (tmp_path / str(label)).mkdir()
        for number in range(50):
            (tmp_path / str(label) / f"{number}.png").touch()
    half = data.open_folder("train", path=str(tmp_path)).labels[:100]
    assert np.bincount(half).min() > 15


def test_extensions_hidden_files_and_nested_folders(tmp_path):
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    for name in ("a.jpg", "b.JPEG", "c.Png", "d.bmp", "e.webp", "deep/er/f.jpg"):
        file = tmp_path / "one" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    for name in ("one/.g.png", "one/.deep/h.png", "one/notes.txt", ".two/i.png", "j.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("not a picture")
    source = data.open_folder("train", path=str(tmp_path))
    assert source.class_names == ("one",)
    names = ["a.jpg", "b.JPEG", "c.Png", "d.bmp", "deep/er/f.jpg", "e.webp"]
    assert sorted(source.files) == [f"one/{name}" for name in names]
    for sample in source:
        assert abs(sample["image"].astype(int) - [10, 20, 30]).max() <= 5  # JPEG and WebP are lossy


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 3), (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (1, 2, 3, 4), (1, 2, 3)),
        ("I;16", 0x4D12, (0x4D, 0x4D, 0x4D)),
    ],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, pixel, expected):
    (tmp_path / "one").mkdir()
    Image.new(mode, (5, 4), pixel).save(tmp_path / "one" / "a.png")
    image = data.open_folder("train", path=str(tmp_path))[0]["image"]
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8
    assert (image == expected).all()


@pytest.mark.filterwarnings("error")
def test_palettes_and_cmyk_become_rgb(tmp_path):
    (tmp_path / "one").mkdir()
    palette = Image.new("RGB", (4, 4), (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = bytes([0])
    palette.save(tmp_path / "one" / "a.png", transparency=bytes([0]))
    Image.new("CMYK", (4, 4), (0, 0, 0, 255)).save(tmp_path / "one" / "b.jpg")
    source = data.open_folder("train", path=str(tmp_path))
    found = {file: source[i]["image"] for i, file in enumerate(source.files)}
    assert (found["one/a.png"] == (200, 100, 50)).all()
    assert found["one/b.jpg"].max() <= 5


def test_splits_share_the_classes_of_train(class_folder, tmp_path):
    root = tmp_path / "splits"
    shutil.copytree(class_folder, root / "train")
    shutil.copytree(class_folder / "bee", root / "val" / "bee")
    val = data.open_folder("val", path=str(root))
    assert val.class_names == ("ant", "bee", "cat")
    assert set(val.labels.tolist()) == {1}
    assert len(data.open_source("folder", "train+val", path=str(root))) == 16
    with pytest.raises(
        ValueError, match=r"unknown split of .*splits 'vall'; .* did you mean 'val'"
    ):
        data.open_source("folder", "vall", path=str(root))
    shutil.copytree(class_folder / "cat", root / "val" / "dog")
    with pytest.raises(
        ValueError, match=r"has class folders that .*train lacks: dog; sort the pic"
    ):
        data.open_source("folder", "val", path=str(root))


def test_linked_class_folders_are_followed(class_folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    os.symlink(class_folder / "ant", linked / "ant", target_is_directory=True)
    assert len(data.open_folder("train", path=str(linked))) == 4


@pytest.mark.parametrize("content", [b"", b"not a picture at all", b"\x89PNG\r\n\x1a\n broken"])
def test_a_corrupt_picture_is_named(class_folder, content):
    (class_folder / "bee" / "1.png").write_bytes(content)
    source = data.open_folder("train", path=str(class_folder))
    index = source.files.index("bee/1.png")
    with pytest.raises(
        ValueError, match=r"cannot decode .*bee.1\.png \(.* bytes\): .*; replace the"
    ):
        source[index]


def test_a_truncated_jpeg_is_named(tmp_path, pictures):
    (tmp_path / "one").mkdir()
    file = tmp_path / "one" / "cut.jpg"
    Image.fromarray(np.tile(pictures[0][0], (20, 20, 1))).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot decode .*cut\.jpg \(1000 bytes\)"):
        data.open_folder("train", path=str(tmp_path))[0]


def test_pictures_without_a_range_are_refused(tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("F", (4, 4)).save(tmp_path / "one" / "a.tiff")
    (tmp_path / "one" / "a.tiff").rename(tmp_path / "one" / "a.png")
    with pytest.raises(ValueError, match=r"pixels of mode F have no range of 0\.\.255"):
        data.open_folder("train", path=str(tmp_path))[0]


def test_a_deleted_picture_is_named(class_folder):
    source = data.open_folder("train", path=str(class_folder))
    (class_folder / source.files[2]).unlink()
    with pytest.raises(FileNotFoundError, match=f"{source.files[2]} was deleted since train of"):
        source[2]


def test_folders_without_pictures_are_refused(tmp_path, class_folder):
    def opening(split, path):
        return lambda: data.open_folder(split, path=str(path))

    empty, bare, files = tmp_path / "empty", tmp_path / "bare", tmp_path / "files"
    (empty / "one").mkdir(parents=True)
    bare.mkdir()
    (files / "train").mkdir(parents=True)
    cases = [
        (opening("train", ""), ValueError, "got no path"),
        (opening("train", tmp_path / "nowhere"), FileNotFoundError, "nowhere does not exist"),
        (opening("train", class_folder / "ant" / "0.png"), ValueError, "0.png is a file; pass the"),
        (
            opening("train", empty),
            ValueError,
            "no picture in the 1 class folders of .*empty; wants",
        ),
        (opening("train", bare), ValueError, "no class folder in .*bare; wants one folder per"),
        (opening("train", files), ValueError, "no class folder in .*files.train; wants one folder"),
        (opening("test", class_folder), ValueError, "'test'; choose one of 'train'"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=f"(open_folder|unknown split): ?.*{message}"):
            call()
