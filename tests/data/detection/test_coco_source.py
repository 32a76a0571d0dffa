import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from condconv_jax import data
from condconv_jax.data import detection


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def test_samples_are_what_the_file_says(coco):
    source = detection.open_coco("train", path=coco.write())
    assert source.class_names == ("ant", "bee")  # in the order of the ids
    assert source.category_ids == (4, 30)
    assert source.remarks == ()
    assert [sample["image_id"] for sample in source] == [7, 3, 5]  # the file's order
    first, second, third = source
    for sample in (first, second, third):
        np.testing.assert_array_equal(sample["image"], coco.images[sample["image_id"]])
        types = {key: sample[key].dtype for key in ("boxes", "labels", "crowd", "area")}
        expected = {"boxes": np.float32, "labels": np.int32, "crowd": bool, "area": np.float32}
        assert types == expected
    # Left 10, top 5, width 20, height 10 of 40 x 20.
    np.testing.assert_array_equal(first["boxes"], [[0.25, 0.25, 0.75, 0.75]])
    assert first["area"].tolist() == [150.5]
    # Left 5, top 10, width 10, height 20 of 20 x 40; then the whole, a crowd of the other class.
    np.testing.assert_array_equal(second["boxes"], [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]])
    assert second["labels"].tolist() == [1, 0]
    assert second["crowd"].tolist() == [False, True]
    assert second["area"].tolist() == [200, 800]  # the boxes', for there are none in the file
    assert third["boxes"].shape == (0, 4)
    assert third["labels"].shape == third["crowd"].shape == third["area"].shape == (0,)


def test_changing_a_sample_does_not_change_the_source(coco):
    source = detection.open_coco("train", path=coco.write())
    for key in ("boxes", "labels", "crowd", "area"):
        source[0][key][:] = 0
        assert_same(source[0], detection.open_coco("train", path=str(coco.root))[0])


@pytest.mark.parametrize("annotations", ["annotations", ""])
@pytest.mark.parametrize("pictures", ["train", "images/train", "images.zip", "train.zip"])
def test_every_layout_gives_the_same(coco, tmp_path, annotations, pictures):
    expected = list(detection.open_coco("train", path=coco.write()))
    root = tmp_path / "other"
    coco.root, coco.file = root, root / annotations / "instances_train.json"
    root.mkdir()
    path, old = coco.write(), tmp_path / "insects" / "train"
    if pictures.endswith(".zip"):
        with zipfile.ZipFile(root / pictures, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, file in enumerate(old.iterdir()):
                # Some packers keep the "./".
                archive.writestr(f"{'./' * (number % 2)}train/{file.name}", file.read_bytes())
    else:
        shutil.copytree(old, root / pictures)
    source = detection.open_coco("train", path=path)
    for one, other in zip(source, expected, strict=True):
        assert_same(one, other)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: source[i % 3]["image"].tobytes(), range(240)))
    assert found == [sample["image"].tobytes() for sample in expected] * 80


def test_pictures_in_folders_inside(coco):
    (coco.root / "train" / "a" / "b").mkdir(parents=True)
    for entry in coco.content["images"][:2]:
        name = f"a/b/{entry['file_name']}"
        (coco.root / "train" / entry["file_name"]).rename(coco.root / "train" / name)
        entry["file_name"] = name
    assert len(list(detection.open_coco("train", path=coco.write()))) == 3


def test_categories_can_be_chosen(coco):
    path = coco.write()
    both = detection.open_coco("train", path=path, categories=("bee", "ant"))
    assert both.class_names == ("bee", "ant")
    assert both.category_ids == (30, 4)
    assert both[1]["labels"].tolist() == [0, 1]
    bees = detection.open_detection_source("coco", "train", path=path, categories=["bee"])
    assert [sample["labels"].tolist() for sample in bees] == [[], [0], []]
    assert bees.remarks == (
        "instances_train.json: 2 boxes of other categories left out, the first of picture 7.png "
        "(annotation 101)",
    )
    with pytest.raises(ValueError, match=r"category of .* 'beee'; .* did you mean 'bee'\?"):
        detection.open_coco("train", path=path, categories=("beee",))
    for wrong in ("bee", ("bee", "bee")):
        with pytest.raises(ValueError, match=r"open_coco: got categories .*; wants different nam"):
            detection.open_coco("train", path=path, categories=wrong)
    coco.content["categories"].append({"id": 9, "name": "bee"})
    with pytest.raises(
        ValueError, match=r"categories\[2\] has the name 'bee' of another; wants one"
    ):
        detection.open_coco("train", path=coco.write())
    assert detection.open_coco("train", path=path, categories=("ant",)).class_names == ("ant",)
    with pytest.raises(ValueError, match=r"categories has 'bee' as \[9, 30\]; wants one of each"):
        detection.open_coco("train", path=coco.write(), categories=("bee",))


def test_boxes_that_cannot_be_used_are_left_out_or_cut_off(coco):
    whole = coco.content["annotations"]
    coco.add(1, 7, 4, [10, 5, 0, 5])
    coco.add(2, 3, 4, [10, 5, 5, -1])
    coco.add(3, 3, 4, [20, 5, 5, 5])  # begins where the picture ends
    coco.add(4, 7, 4, [-20, -10, 30, 15], area=450)
    coco.add(5, 7, 4, [30, 10, 10.01, 10])  # rounding
    coco.add(6, 7, 4, [30, 10, 1e-9, 10])  # a line to float32
    coco.content["annotations"] = whole[3:] + whole[:3]
    source = detection.open_coco("train", path=coco.write())
    sample = source[0]
    np.testing.assert_array_equal(
        sample["boxes"], [[0, 0, 0.25, 0.25], [0.5, 0.75, 1, 1], [0.25, 0.25, 0.75, 0.75]]
    )
    assert sample["area"].tolist() == [450, 100, 150.5]
    assert len(source[1]["boxes"]) == 2
    assert source.remarks == (
        "instances_train.json: 3 boxes of zero or negative size left out, the first of picture "
        "7.png (annotation 1)",
        "instances_train.json: 1 box wholly outside the picture left out, the first of picture "
        "3.png (annotation 3)",
        "instances_train.json: 1 box cut off at the picture's edge, of at most 20 pixels beyond "
        "it, the first of picture 7.png (annotation 4)",
    )


def test_remarks_survive_slices_joining_and_skipping(coco):
    coco.add(1, 7, 4, [10, 5, 0, 5])
    path = coco.write()
    (remark,) = detection.open_coco("train", path=path).remarks
    assert "1 box of zero or negative size left out" in remark
    for split in ("train[:2]", "train[:1]+train[1:]", "train[:1]+train[1:2]+train"):
        source = detection.open_detection_source("coco", split, path=path)
        assert source.remarks == (remark,)
        assert data.SkippingSource(source, 1, print).remarks == (remark,)
        assert source[1]["image_id"] == 3


def test_classes_that_differ_are_noticed(coco, tmp_path):
    one = detection.open_coco("train", path=coco.write())
    coco.content["categories"][0]["name"] = "wasp"
    other = detection.open_coco("train", path=coco.write())
    assert one.class_names != other.class_names
    with pytest.raises(ValueError, match=r"\(ant, bee\), train of .* has \(ant, wasp\); join only"):
        data.ConcatenatedSource([one, other], "both")


def test_damaged_pictures_can_be_passed_over(coco):
    path = coco.write()
    (coco.root / "train" / "7.png").write_bytes(b"broken")
    Image.new("RGB", (39, 20)).save(coco.root / "train" / "3.png")
    source = detection.open_coco("train", path=path)
    with pytest.raises(data.CorruptSampleError, match=r"cannot decode .*7\.png \(6 bytes\)"):
        source[0]
    with pytest.raises(
        data.CorruptSampleError, match=r"3\.png is 20x39 \(height x width\), the .* says 40x20; its"
    ):
        source[1]
    messages = []
    skipping = data.SkippingSource(source, 2, messages.append)
    assert [sample["image_id"] for sample in skipping] == [5, 5, 5]
    assert len(messages) == 2


@pytest.mark.parametrize("archive", [False, True])
def test_missing_pictures_are_counted(coco, archive):
    path = coco.write()
    (coco.root / "train" / "3.png").unlink()
    (coco.root / "train" / "5.png").unlink()
    place = "train"
    if archive:
        with zipfile.ZipFile(coco.root / "images.zip", "w") as opened:
            opened.write(coco.root / "train" / "7.png", "train/7.png")
        shutil.rmtree(coco.root / "train")
        place = "images.zip"
    with pytest.raises(
        FileNotFoundError, match=rf"open_coco: .*3\.png is not in .*{place}; 2 of 3 pictures are"
    ):
        detection.open_coco("train", path=path)


def test_pictures_deleted_later_are_named(coco):
    source = detection.open_coco("train", path=coco.write())
    (coco.root / "train" / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"3\.png was deleted since the folder was opened"):
        source[1]


def test_places_that_are_not_there(coco, tmp_path):
    path = coco.write()
    with pytest.raises(ValueError, match=r"open_coco: got no path; pass the folder that holds"):
        detection.open_coco("train")
    with pytest.raises(FileNotFoundError, match=r"open_coco: .*nowhere is not a folder; pass"):
        detection.open_coco("train", path=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"split of .*insects \(inst.* 'trin'; .*mean 'train'\?"):
        detection.open_coco("trin", path=path)
    shutil.rmtree(coco.root / "train")
    with pytest.raises(
        FileNotFoundError, match=r"no pictures of the split 'train' in .*; put them into one of "
    ):
        detection.open_coco("train", path=path)
    (coco.root / "images.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"open_coco: .*images\.zip cannot be read as a zip arch"):
        detection.open_coco("train", path=path)


def test_unknown_names_are_refused(coco):
    path = coco.write()
    with pytest.raises(ValueError, match=r"open_detection_source: unknown source 'cocoo'; .*'coco"):
        detection.open_detection_source("cocoo", "train", path=path)
    with pytest.raises(ValueError, match=r"option of the source 'coco' 'category'; .*'categories'"):
        detection.open_detection_source("coco", "train", path=path, category="bee")
