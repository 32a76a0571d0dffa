import numpy as np
import pytest
import voc_to_coco
from PIL import Image

from condconv_jax.data import detection

ANNOTATION = """<annotation><size><width>40</width><height>20</height></size>
<object><name>cell</name><bndbox>
<xmin>10</xmin><ymin>5</ymin><xmax>30</xmax><ymax>15</ymax></bndbox></object>
<object><name>ant</name><difficult>1</difficult><bndbox>
<xmin>0</xmin><ymin>0</ymin><xmax>40</xmax><ymax>20</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "voc"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b"):
        (root / "Annotations" / f"{name}.xml").write_text(ANNOTATION)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("b\n\n")
    return root


def test_training_reads_what_was_converted(voc, tmp_path, capsys):
    out = tmp_path / "coco"
    assert voc_to_coco.main([str(voc), f"--out={out}"]) == 0
    assert "instances_val.json" in capsys.readouterr().out
    for split in ("train", "val"):
        source = detection.open_coco(split, path=str(out))
        assert source.class_names == ("ant", "cell")
        (sample,) = source
        # (top, left, bottom, right) of 20 x 40 pixels.
        np.testing.assert_array_equal(sample["boxes"], [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]])
        assert sample["labels"].tolist() == [1, 0]
        assert sample["crowd"].tolist() == [False, True]


def test_what_is_wrong_is_named(voc, tmp_path, capsys):
    given = [str(voc), f"--out={tmp_path / 'coco'}"]
    (voc / "Annotations" / "b.xml").write_text(ANNOTATION.replace("xmin", "left"))
    assert voc_to_coco.main(given) == 1
    assert "b.xml: <object> has no <bndbox/xmin>" in capsys.readouterr().err
    (voc / "Annotations" / "b.xml").write_text("<annotation>")
    assert voc_to_coco.main(given) == 1
    assert "b.xml: no element found" in capsys.readouterr().err
    (voc / "Annotations" / "b.xml").unlink()
    assert voc_to_coco.main(given) == 1
    assert "b.xml" in capsys.readouterr().err
    assert voc_to_coco.main([str(tmp_path), f"--out={tmp_path / 'coco'}"]) == 1
    assert "has none of train.txt" in capsys.readouterr().err
