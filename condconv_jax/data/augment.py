"""The operations that AutoAugment and RandAugment choose from, by Pillow.

Each is a function (picture, amount) -> picture on RGB pictures of any size; `make_operations` says
what amount a level stands for. Level 0 to 10 is the range that AutoAugment's search had;
RandAugment goes on beyond 10 along the same lines. Where there is no picture after moving it, and
where it is cut out, there is grey.

Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py, for every number and for which
pixel goes where. Two things differ, in RandAugment alone. Contrast blends with the picture's mean
grey, as Pillow and the papers do; there it is a count of pixels, over 256. And a threshold of 256
or more, which is not a number of 8 bits, solarizes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)
MAX_LEVEL = 10.0


@dataclass(frozen=True)
class Operation:
    """One way to change a picture, at any level.

    Attributes:
      run: (picture, amount, rng) -> picture.
      amount: level -> amount, in the unit of `run`.
      signed: whether the amount is negated in half of the cases.
    """

    run: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    amount: Callable[[float], float]
    signed: bool = False

    def __call__(self, picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        """Returns the changed picture, of the same size."""
        amount = self.amount(level)
        if self.signed and rng.integers(2):
            amount = -amount
        return self.run(picture, amount, rng)


def make_operations(*, translate: float, cutout: float) -> Mapping[str, Operation]:
    """Returns every operation by name.

    name                                       amount at level l (of 10)
    autocontrast, equalize, invert             none
    posterize                                  int(4 l/10) bits are kept, at least 1, at most 8
    solarize                                   pixels from int(256 l/10) on are inverted
    solarize_add                               int(110 l/10) is added to pixels below 128
    color, contrast, brightness, sharpness     factor 1.8 l/10 + 0.1; 1 is the picture itself
    rotate                                     +-30 l/10 degrees
    shear_x, shear_y                           +-0.3 l/10 pixels per pixel
    translate_x, translate_y                   +-translate l/10 pixels
    cutout                                     int(cutout l/10) pixels to each side of a point

    Args:
      translate: how far level 10 moves a picture, pixels.
      cutout: half the side of the square that level 10 cuts out, pixels.

    Source: `level_to_arg` of the file above; arXiv 1805.09501, table 6.
    """
    enhanced = _linear(1.8, 0.1)
    rotated, sheared, moved = _linear(30.0), _linear(0.3), _linear(translate)
    return {
        "autocontrast": Operation(lambda p, _, __: autocontrast(p), _linear(0.0)),
        "equalize": Operation(lambda p, _, __: equalize(p), _linear(0.0)),
        "invert": Operation(lambda p, _, __: invert(p), _linear(0.0)),
        "posterize": Operation(lambda p, bits, _: posterize(p, int(bits)), _whole(4)),
        "solarize": Operation(lambda p, least, _: solarize(p, int(least)), _whole(256)),
        "solarize_add": Operation(lambda p, added, _: solarize_add(p, int(added)), _whole(110)),
        "color": Operation(lambda p, factor, _: color(p, factor), enhanced),
        "contrast": Operation(lambda p, factor, _: contrast(p, factor), enhanced),
        "brightness": Operation(lambda p, factor, _: brightness(p, factor), enhanced),
        "sharpness": Operation(lambda p, factor, _: sharpness(p, factor), enhanced),
        "rotate": Operation(lambda p, angle, _: rotate(p, angle), rotated, signed=True),
        "shear_x": Operation(lambda p, slope, _: shear_x(p, slope), sheared, signed=True),
        "shear_y": Operation(lambda p, slope, _: shear_y(p, slope), sheared, signed=True),
        "translate_x": Operation(lambda p, by, _: translate_x(p, by), moved, signed=True),
        "translate_y": Operation(lambda p, by, _: translate_y(p, by), moved, signed=True),
        "cutout": Operation(_cut_anywhere, _whole(cutout)),
    }


def autocontrast(picture: Image.Image) -> Image.Image:
    """Returns each channel stretched so that its darkest pixel is 0 and its lightest 255."""
    return ImageOps.autocontrast(picture)


def equalize(picture: Image.Image) -> Image.Image:
    """Returns each channel with its values spread so that all are about as frequent."""
    return ImageOps.equalize(picture)


def invert(picture: Image.Image) -> Image.Image:
    """Returns 255 - picture."""
    return ImageOps.invert(picture)


def posterize(picture: Image.Image, bits: int) -> Image.Image:
    """Returns the picture with the highest 1 to 8 bits of each value, the others 0.

    Fewer bits than 1 keep 1, more than 8 keep all: TensorFlow's shifts, which the official code
    uses, go by 0 to 7 places.
    """
    return ImageOps.posterize(picture, min(max(bits, 1), 8))


def solarize(picture: Image.Image, threshold: int) -> Image.Image:
    """Returns the picture with values from the threshold (0 to 256) on inverted."""
    return ImageOps.solarize(picture, threshold)


def solarize_add(picture: Image.Image, addition: int, threshold: int = 128) -> Image.Image:
    """Returns the picture with `addition` added to values below the threshold, at most 255."""
    table = [min(v + addition, 255) if v < threshold else v for v in range(256)]
    return picture.point(table * len(picture.getbands()))


def color(picture: Image.Image, factor: float) -> Image.Image:
    """Returns factor * picture + (1 - factor) * its grey version, clipped."""
    return ImageEnhance.Color(picture).enhance(factor)


def contrast(picture: Image.Image, factor: float) -> Image.Image:
    """Returns factor * picture + (1 - factor) * its mean grey, clipped."""
    return ImageEnhance.Contrast(picture).enhance(factor)


def brightness(picture: Image.Image, factor: float) -> Image.Image:
    """Returns factor * picture, clipped."""
    return ImageEnhance.Brightness(picture).enhance(factor)


def sharpness(picture: Image.Image, factor: float) -> Image.Image:
    """Returns factor * picture + (1 - factor) * its smoothed version, clipped.

    Smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; pixels at the border stay.
    """
    return ImageEnhance.Sharpness(picture).enhance(factor)


def rotate(picture: Image.Image, degrees: float) -> Image.Image:
    """Returns the picture turned counterclockwise about its centre, to the nearest pixels."""
    return picture.rotate(degrees, Image.Resampling.NEAREST, fillcolor=GREY)


def shear_x(picture: Image.Image, slope: float) -> Image.Image:
    """Returns the picture with row y moved slope * y pixels to the left; row 0 stays."""
    # Pillow maps centres of pixels, which are at y + 1/2; the official code maps their numbers.
    return _moved(picture, (1, slope, -slope / 2, 0, 1, 0))


def shear_y(picture: Image.Image, slope: float) -> Image.Image:
    """Returns the picture with column x moved slope * x pixels up; column 0 stays."""
    return _moved(picture, (1, 0, 0, slope, 1, -slope / 2))


def translate_x(picture: Image.Image, pixels: float) -> Image.Image:
    """Returns the picture moved to the left, by the nearest whole number of pixels."""
    return _moved(picture, (1, 0, pixels, 0, 1, 0))


def translate_y(picture: Image.Image, pixels: float) -> Image.Image:
    """Returns the picture moved up, by the nearest whole number of pixels."""
    return _moved(picture, (1, 0, 0, 0, 1, pixels))


def cutout(picture: Image.Image, pad: int, row: int, column: int) -> Image.Image:
    """Returns the picture with grey in [row - pad, row + pad) x [column - pad, column + pad).

    Source: DeVries and Taylor 2017, arXiv 1708.04552.
    """
    box = (
        max(column - pad, 0),
        max(row - pad, 0),
        min(column + pad, picture.width),
        min(row + pad, picture.height),
    )
    picture = picture.copy()
    if pad > 0:
        picture.paste(GREY, box)
    return picture


def _cut_anywhere(picture: Image.Image, pad: float, rng: np.random.Generator) -> Image.Image:
    row, column = int(rng.integers(picture.height)), int(rng.integers(picture.width))
    return cutout(picture, int(pad), row, column)


def _linear(at_most: float, at_least: float = 0.0) -> Callable[[float], float]:
    """Level -> level / 10 of `at_most`, above `at_least`."""
    return lambda level: level / MAX_LEVEL * at_most + at_least


def _whole(at_most: float) -> Callable[[float], float]:
    """Level -> level / 10 of `at_most`, cut to a whole number."""
    return lambda level: int(level / MAX_LEVEL * at_most)


def _moved(picture: Image.Image, inverse: tuple[float, ...]) -> Image.Image:
    """Returns the pixel nearest to (a x + b y + c, d x + e y + f) at (x, y), grey outside."""
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        inverse,
        resample=Image.Resampling.NEAREST,
        fillcolor=GREY,
    )
