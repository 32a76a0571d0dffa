"""What is wrong in an annotation file is named, with its place."""

import pytest

from condconv_jax.data import detection


def opening(coco, message):
    path = coco.write()
    with pytest.raises(
        ValueError, match=rf"open_coco: .*instances_train\.json: (annotation )?{message}"
    ):
        detection.open_coco("train", path=path)


def test_broken_json_is_named_with_line_and_column(coco):
    path = coco.write()
    coco.file.write_text('{"images": [],\n "annotations": [}')
    with pytest.raises(
        ValueError, match=r"instances_train\.json is not JSON: Expecting value in line 2, column 18"
    ):
        detection.open_coco("train", path=path)
    coco.file.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(ValueError, match=r"is not text in UTF-8: .* at byte 12; copy"):
        detection.open_coco("train", path=path)


def test_a_byte_order_mark_is_allowed(coco):
    path = coco.write()
    coco.file.write_bytes(b"\xef\xbb\xbf" + coco.file.read_bytes())
    assert len(detection.open_coco("train", path=path)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"the whole is a list; wants an object"),
        ({}, r"the whole has no 'images'; wants images, annotations and categories"),
        ({"images": {}}, r"images is a dict; wants a list of objects"),
        ({"images": [3]}, r"images\[0\] is 3; wants an object"),
    ],
)
def test_another_structure(coco, content, message):
    coco.content = content
    opening(coco, message)


@pytest.mark.parametrize(
    ("key", "index", "change", "message"),
    [
        ("images", 1, {"id": None}, r"images\[1\] has id null; wants a whole number"),
        ("images", 1, {"id": 2**31}, r"images\[1\] has id 2147483648; wants a whole number, -21"),
        ("images", 1, {"id": 7}, r"images\[1\] has id 7, as images\[0\] has; wants pictures wi"),
        ("images", 2, {"width": 0}, r"images\[2\] has width 0; wants a whole number, 1\.\."),
        ("images", 2, {"height": 2.5}, r"images\[2\] has height 2\.5; wants a whole number, 1"),
        ("images", 0, {"file_name": 7}, r"images\[0\] has file_name 7; wants a text"),
        ("categories", 1, {"id": "4"}, r'categories\[1\] has id "4"; wants a whole number'),
        ("categories", 1, {"id": 30}, r"categories\[1\] has id 30, as categories\[0\] has; wants"),
        ("categories", 0, {"name": None}, r"categories\[0\] has name null; wants a text"),
        ("annotations", 2, {"id": 1.5}, r"annotations\[2\] has id 1\.5; wants a whole number"),
        ("annotations", 1, {"image_id": 8}, r"annotation 101 has image_id 8, and there is no su"),
        ("annotations", 0, {"category_id": 1}, r"annotation 100 has category_id 1, and .* no such"),
        ("annotations", 0, {"iscrowd": 2}, r"annotations\[0\] has iscrowd 2; wants 0 or 1"),
        ("annotations", 0, {"iscrowd": "no"}, r'annotations\[0\] has iscrowd "no"; wants 0 or 1'),
        ("annotations", 1, {"area": -1}, r"annotation 101 has area -1; wants a finite number of"),
        ("annotations", 1, {"area": float("nan")}, r"annotation 101 has area NaN; wants a finite"),
        ("annotations", 1, {"area": [1]}, r"annotation 101 has area \[1\]; wants a finite"),
        ("annotations", 1, {"bbox": 3}, r"annotations\[1\] has bbox 3; wants four finite numbers"),
        ("annotations", 1, {"bbox": [1, 2, 3]}, r"annotation 101 has bbox \[1, 2, 3\]; wants four"),
        ("annotations", 1, {"bbox": [1, 2, 3, True]}, r"annotation 101 has bbox \[1, 2, 3, true\]"),
        ("annotations", 1, {"bbox": [1, 2, 3, "4"]}, r'101 has bbox \[1, 2, 3, "4"\]; wants four'),
        ("annotations", 2, {"bbox": [1, 2, 3, float("inf")]}, r"102 has bbox .*Infinity\]; wants"),
        ("annotations", 2, {"bbox": [1, 2, float("nan"), 4]}, r"102 has bbox .*NaN, 4\]; wants"),
        ("annotations", 2, {"bbox": [1, 2, 10**400, 4]}, r"102 has bbox \[1, 2, 10+\.\.\.; wants"),
    ],
)
def test_values_that_cannot_be(coco, key, index, change, message):
    coco.content[key][index] |= change
    opening(coco, message)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("images", "width"),
        ("images", "height"),
        ("categories", "id"),
        ("categories", "name"),
        ("annotations", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
    ],
)
def test_missing_keys(coco, key, name):
    del coco.content[key][1][name]
    opening(coco, rf"{key}\[1\] has no '{name}'; wants ")


def test_no_categories(coco):
    coco.content |= {"categories": [], "annotations": []}
    opening(coco, r"categories is empty; wants at least one category")


def test_no_annotations_are_none(coco):
    coco.content["annotations"] = []
    source = detection.open_coco("train", path=coco.write())
    assert [len(sample["boxes"]) for sample in source] == [0, 0, 0]
    assert source.remarks == ()
    assert source.class_names == ("ant", "bee")


def test_no_pictures_are_none(coco):
    coco.content |= {"images": [], "annotations": []}
    assert len(detection.open_coco("train", path=coco.write())) == 0
