"""Bytes of a picture file in, uint8 RGB array out."""

import io
import struct

import numpy as np
from PIL import Image

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


def decode_image(data: bytes | memoryview, name: str) -> np.ndarray:
    """Returns a picture file's pixels as uint8 (h, w, 3) in RGB.

    Grey pictures become three equal channels, transparency is dropped, CMYK and palettes are
    converted. 16-bit grey keeps its upper 8 bits. The orientation a camera wrote into EXIF is
    ignored, as TensorFlow and torchvision ignore it.

    Args:
      data: the whole file.
      name: what the error message calls it, usually its path.

    Raises:
      ValueError: if Pillow cannot decode it; the message names the picture.
    """
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
        raise ValueError(
            f"decode_image: cannot decode {name} ({len(data)} bytes): {error}; replace the "
            f"picture by an intact one, or delete it"
        ) from error
