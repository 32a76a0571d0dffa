import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def real_data():
    folder = os.environ.get("CONDCONV_DATA", "")
    if not folder:
        pytest.skip("CONDCONV_DATA is not set: no real data sets")
    return Path(folder)


@pytest.fixture
def pictures():
    """Twelve different colour pictures of 10x10 in three classes, in turn."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 10, 10, 3), dtype=np.uint8), np.arange(12) % 3


@pytest.fixture
def class_folder(tmp_path, pictures):
    """The pictures as PNG files, in one folder for each of the classes ant, bee and cat."""
    root = tmp_path / "insects"
    for number, (image, label) in enumerate(zip(*pictures, strict=True)):
        folder = root / ("ant", "bee", "cat")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return root
