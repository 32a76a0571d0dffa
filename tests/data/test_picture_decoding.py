import importlib.util
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from condconv_jax import data
from condconv_jax.data import decoding

needs_simplejpeg = pytest.mark.skipif(
    importlib.util.find_spec("simplejpeg") is None, reason="the extra fast-data is not installed"
)


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def photograph(height=61, width=83, mode="RGB"):
    """Waves of all scales, so that every coefficient and all chroma planes are in use."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows * columns / (40 + 30 * c)) + np.cos(columns / (3 + c)) for c in range(3)]
    pixels = np.stack(waves, axis=-1) * 60 + 128
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


ORDINARY = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True, "subsampling": 2},
    "optimised": {"optimize": True, "quality": 50},
    "the best": {"quality": 100},
    "the worst": {"quality": 1},
}


@needs_simplejpeg
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", ORDINARY.values(), ids=ORDINARY)
def test_both_decoders_give_the_same_pixels(mode, options):
    for shape in ((61, 83), (64, 48), (1, 1), (17, 2)):
        file = jpeg(photograph(*shape, mode), **options)
        fast = decoding._decode_jpeg(file)
        np.testing.assert_array_equal(fast, data.decoding.decode_image(file, "x", fast=False))
        np.testing.assert_array_equal(fast, data.decoding.decode_image(memoryview(file), "x"))


@needs_simplejpeg
@pytest.mark.parametrize("archive", ["originals", "val_short128"])
def test_both_decoders_give_the_same_pixels_for_imagenet(real_data, archive):
    with zipfile.ZipFile(real_data / "imagenet-samples" / f"{archive}.zip") as opened:
        for name in opened.namelist():
            file = opened.read(name)
            fast = decoding._decode_jpeg(file)
            np.testing.assert_array_equal(fast, decoding.decode_image(file, name, fast=False))


@needs_simplejpeg
def test_other_files_are_left_to_pillow(monkeypatch):
    png = io.BytesIO()
    photograph().save(png, "PNG")
    cmyk, colours = jpeg(photograph(mode="CMYK")), jpeg(photograph(), keep_rgb=True)
    for file in (png.getvalue(), cmyk, colours, b"", b"\xff\xd8", jpeg(photograph())[:500]):
        assert decoding._decode_jpeg(file) is None
    assert decoding.decode_image(cmyk, "cmyk").shape == (61, 83, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 61 * 83 - 1)
    assert decoding._decode_jpeg(jpeg(photograph())) is None


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused_alike(kept):
    file = jpeg(photograph())
    cut = file[: int(kept * len(file))]
    messages = []
    for fast in (True, False):
        with pytest.raises(data.CorruptSampleError, match=r"cannot decode a\.jpg \(\d+ b") as error:
            decoding.decode_image(cut, "a.jpg", fast=fast)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_what_pillow_forgives_is_forgiven_alike():
    image = photograph()
    file = jpeg(image)
    noisy = file[:-40] + b"\x00" * 8 + file[-32:]
    for forgiven in (file + b"garbage", noisy):
        slow = decoding.decode_image(forgiven, "x", fast=False)
        np.testing.assert_array_equal(decoding.decode_image(forgiven, "x"), slow)


def test_without_simplejpeg_pillow_decodes(monkeypatch):
    file = jpeg(photograph())
    expected = decoding.decode_image(file, "x")
    monkeypatch.setattr(decoding, "_SIMPLEJPEG", None)
    np.testing.assert_array_equal(decoding.decode_image(file, "x"), expected)


def test_simplejpeg_is_not_used_beside_another_libjpeg(monkeypatch):
    monkeypatch.setattr(decoding.features, "check", lambda name: name != "libjpeg_turbo")
    assert decoding._import_simplejpeg() is None
