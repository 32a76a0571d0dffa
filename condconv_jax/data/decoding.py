"""Bytes of a picture file, or of a WAV file, in; uint8 RGB array out."""

import importlib
import io
import struct
from typing import Any

import numpy as np
from PIL import Image, features

from condconv_jax.data.speech.picture import sound_picture
from condconv_jax.data.speech.wav import DAMAGES, is_wav, read_wav

# What Pillow raises on broken files, by decoder: OSError (truncated, unidentified), SyntaxError
# (PNG chunks), struct.error and ValueError (headers), EOFError, and its own guard against
# pictures that would fill the memory.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class CorruptSampleError(ValueError):
    """A sample that was read but is damaged; `SkippingSource` passes over such samples."""


def _import_simplejpeg() -> Any:
    """Returns the module simplejpeg; None where it, or Pillow with the same decoder, is missing.

    Both then run libjpeg-turbo with its slow, exact inverse DCT and smooth chroma upsampling. The
    pixels are the same, bit by bit: on all 1,024 files of the sample pictures of ImageNet, and on
    every kind of file in tests/data/test_picture_decoding.py.
    """
    try:
        module = importlib.import_module("simplejpeg")
    except ImportError:
        return None
    return module if features.check("libjpeg_turbo") else None


_SIMPLEJPEG = _import_simplejpeg()


def decode_image(data: bytes | memoryview, name: str, *, fast: bool = True) -> np.ndarray:
    """Returns a picture file's pixels as uint8 (h, w, 3) in RGB.

    Grey pictures become three equal channels, transparency is dropped, CMYK and palettes are
    converted. 16-bit grey keeps its upper 8 bits. The orientation a camera wrote into EXIF is
    ignored, as TensorFlow and torchvision ignore it.

    A WAV file becomes the picture of its spectrogram (`sound_picture`), so that whatever takes
    picture files takes sound.

    Args:
      data: the whole file.
      name: what the error message calls it, usually its path.
      fast: decode JPEG files with simplejpeg where it is installed (extra `fast-data`); pixels
        and errors are the same either way.

    Raises:
      CorruptSampleError: if Pillow cannot decode it, or a WAV file is damaged; the message names
        the picture.
      ValueError: if a WAV file is intact but not of 16 kHz, one channel and 16 bits.
    """
    if is_wav(data):
        return _decode_wav(data, name)
    if fast and (pixels := _decode_jpeg(data)) is not None:
        return pixels
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode.startswith("I;16"):
                # Pillow's own conversion to 8 bits clips at 255 instead of scaling.
                grey = (np.asarray(picture) >> 8).astype(np.uint8)
                return np.repeat(grey[..., np.newaxis], 3, axis=2)
            if picture.mode in ("I", "F"):
                raise ValueError(f"pixels of mode {picture.mode} have no range of 0..255")
            if picture.mode == "P" and "transparency" in picture.info:
                picture = picture.convert("RGBA")  # straight to RGB warns, with the same colours
            return np.asarray(picture.convert("RGB"))
    except _DECODER_ERRORS as error:
        raise CorruptSampleError(
            f"decode_image: cannot decode {name} ({len(data)} bytes): {error}; replace the "
            f"picture by an intact one, or delete it"
        ) from error


def _decode_wav(data: bytes | memoryview, name: str) -> np.ndarray:
    try:
        return sound_picture(read_wav(data, name))
    except DAMAGES as error:
        raise CorruptSampleError(
            f"decode_image: cannot read the sound of {name} ({len(data)} bytes): {error}; replace "
            f"it by an intact WAV file of plain samples (PCM), or delete it"
        ) from error


def _decode_jpeg(data: bytes | memoryview) -> np.ndarray | None:
    """Returns the pixels of an ordinary JPEG file; None for all else, for Pillow to judge.

    simplejpeg refuses whatever libjpeg-turbo warns of, truncated files among it. Pillow forgives
    some of that (a missing end marker, superfluous bytes), so that only its verdict counts.
    """
    if _SIMPLEJPEG is None or bytes(data[:2]) != b"\xff\xd8":
        return None
    try:
        height, width, colours, _ = _SIMPLEJPEG.decode_jpeg_header(data)
        # Other colours are Pillow's to convert, and so is its guard against huge pictures.
        most = Image.MAX_IMAGE_PIXELS
        if colours not in ("YCbCr", "Gray") or (most is not None and height * width > most):
            return None
        return _SIMPLEJPEG.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError:
        return None
