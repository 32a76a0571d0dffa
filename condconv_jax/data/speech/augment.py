"""Augmentation of spectrograms, on pictures of `sound_picture`: moved in time, noise added.

Steps (image, rng) -> image on uint8 (h, w, 3), like those of `condconv_jax.data.transforms`.
"""

from dataclasses import dataclass

import numpy as np

from condconv_jax.data.speech.log_mel import NUM_MELS, noise_freedom
from condconv_jax.data.speech.picture import to_decibels, to_levels


@dataclass(frozen=True)
class TimeShift:
    """The sound up to so much earlier or later, silence in the place left free.

    Attributes:
      frames: most that it is moved either way; 6 are 94 ms. TensorFlow's example for Speech
        Commands moves by up to 100 ms (tensorflow/examples/speech_commands/train.py,
        time_shift_ms).
    """

    frames: int = 6

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (h, w, 3)."""
        shift = int(rng.integers(-self.frames, self.frames + 1))
        moved = np.zeros_like(image)
        width = image.shape[1]
        moved[:, max(0, shift) : width + shift] = image[:, max(0, -shift) : width - shift]
        return moved


@dataclass(frozen=True)
class BackgroundNoise:
    """Steady noise of random level and colour added to the power in every band.

    The powers of independent sounds add up on average; what the phases of the two would do in a
    single frame is left out. The noise's own power is gamma distributed about its mean, as that of
    Gaussian noise in a band of a few bins is.

    Attributes:
      probability: of adding noise at all; 0.8 as TensorFlow's example (background_frequency).
      quietest: lowest level, dB in the middle band (1.9 kHz).
      loudest: highest level, likewise.
      slope: steepest fall, dB over all bands; the colour is uniform from none to it.

    Raises:
      ValueError: on use, if the picture has not one row per band.
    """

    probability: float = 0.8
    quietest: float = -90.0
    loudest: float = -45.0
    slope: float = 30.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns uint8 (NUM_MELS, w, 3); the very picture given if no noise is added."""
        if image.shape[0] != NUM_MELS:
            raise ValueError(
                f"BackgroundNoise: got a picture of {image.shape[0]} rows; wants {NUM_MELS}, one "
                f"per band, as the sources of sound give; leave data.image_size at {NUM_MELS}"
            )
        if rng.random() >= self.probability:
            return image
        level, slope = rng.uniform(self.quietest, self.loudest), rng.uniform(0, self.slope)
        # Rows are from the highest band down.
        course = level + slope * (np.arange(NUM_MELS) / (NUM_MELS - 1) - 0.5)
        shape = noise_freedom()[::-1, np.newaxis]
        varying = rng.standard_gamma(np.broadcast_to(shape, image.shape[:2])) / shape
        noise = 10 ** (course / 10)[:, np.newaxis] * varying
        power = 10 ** (to_decibels(image[..., 0]) / 10) + noise
        return np.repeat(to_levels(10 * np.log10(power))[..., np.newaxis], 3, axis=2)
