import claims_data
import numpy as np
import pytest
from PIL import Image

from condconv_jax import data


@pytest.fixture
def cifar(tmp_path):
    """Six pictures a split of three classes in two kinds, as the binary version has them."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("apple\nbear\nchair\n\n")
    (folder / "coarse_label_names.txt").write_text("alive\ndead\n")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    for split, pictures in zip(("train", "test"), images, strict=True):
        with (folder / f"{split}.bin").open("wb") as file:
            for i, picture in enumerate(pictures):
                fine = i // 2
                file.write(bytes([fine // 2, fine]) + picture.transpose(2, 0, 1).tobytes())
    return folder, images


def test_cifar100_is_read_as_it_was(cifar, tmp_path):
    folder, images = cifar
    assert claims_data.main([f"--cifar100={folder}", f"--out={tmp_path}"]) == 0
    path = str(tmp_path / "cifar100")
    for split, pictures in zip(("train", "test"), images, strict=True):
        fine, coarse = (
            data.open_source("npz", split, path=path, labels=kind) for kind in ("fine", "coarse")
        )
        assert fine.class_names == ("apple", "bear", "chair")
        assert coarse.class_names == ("alive", "dead")
        found = {
            fine[i]["image"].tobytes(): (fine[i]["label"], coarse[i]["label"]) for i in range(6)
        }
        assert found == {picture.tobytes(): (i // 2, i // 4) for i, picture in enumerate(pictures)}
        # Each round has one of each class.
        assert all(
            sorted(fine[i]["label"] for i in part) == [0, 1, 2] for part in ((0, 1, 2), (3, 4, 5))
        )


def test_every_fourth_class_of_tiny_imagenet(tmp_path, monkeypatch):
    monkeypatch.setattr(claims_data, "TRAINING", 2)
    root = tmp_path / "tiny-imagenet-200"
    ids = [f"n{i:02}" for i in range(6)]
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(reversed(ids)))
    (root / "words.txt").write_text("".join(f"{wnid}\tthing {wnid}, other\n" for wnid in ids))
    rows = []
    for i, wnid in enumerate(ids):
        (root / "train" / wnid / "images").mkdir(parents=True)
        grey = Image.new("L", (64, 64), 40 * i)
        for number in range(3):
            grey.save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        grey.save(root / "val" / "images" / f"val_{i}.JPEG")
        rows.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    assert claims_data.main([f"--tiny-imagenet={root}", f"--out={tmp_path}"]) == 0
    path = str(tmp_path / "tiny-imagenet-50")
    for split, count in (("train", 4), ("val", 2)):
        source = data.open_source("npz", split, path=path)
        assert source.class_names == ("thing n00", "thing n04")
        found = [(int(source[i]["label"]), source[i]["image"][0, 0].tolist()) for i in range(count)]
        assert sorted(found) == sorted([(0, [0] * 3), (1, [160] * 3)] * (count // 2))


def test_what_is_refused(cifar, tmp_path, capsys):
    folder, _ = cifar
    with pytest.raises(SystemExit):
        claims_data.main([])
    assert "nothing to convert" in capsys.readouterr().err
    with (folder / "test.bin").open("ab") as file:
        file.write(b"more")
    assert claims_data.main([f"--cifar100={folder}", f"--out={tmp_path}"]) == 1
    assert "test.bin has 18448 bytes; pictures have 3074" in capsys.readouterr().err
    (folder / "train.bin").unlink()
    assert claims_data.main([f"--cifar100={folder}", f"--out={tmp_path}"]) == 1
    assert "train.bin" in capsys.readouterr().err
    assert not (tmp_path / "cifar100").exists()
