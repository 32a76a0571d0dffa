"""A second of sound as a picture, so that all that takes pictures takes sound."""

import numpy as np

from condconv_jax.data.speech.log_mel import HOP, NUM_MELS, SAMPLE_RATE, log_mel

SIZE = NUM_MELS  # pixels on each side; a second has as many frames as there are bands
LENGTH = SIZE * HOP  # samples, one second
QUIETEST, LOUDEST = -90.0, 0.0  # dB of levels 0 and 255; a level is 0.35 dB


def sound_picture(waveform: np.ndarray, *, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Returns the log-mel spectrogram of the middle second of a waveform as a picture.

    Time goes to the right and frequency up. Black is silence, so that the black border that
    cropping puts around a picture is silence before and after.

    Args:
      waveform: int16, or floats in -1..1, (n,); shorter ones get silence on both sides.
      sample_rate: in Hz, 16,000.

    Returns:
      uint8 (SIZE, SIZE, 3), three equal channels.

    Raises:
      ValueError: as `log_mel`, or if there are no samples.
    """
    if waveform.ndim == 1:
        if not len(waveform):
            raise ValueError("sound_picture: got no samples; wants a second, at least one sample")
        waveform = middle_second(waveform)
    levels = to_levels(log_mel(waveform, sample_rate=sample_rate))
    return np.repeat(np.ascontiguousarray(levels.T[::-1])[..., np.newaxis], 3, axis=2)


def middle_second(waveform: np.ndarray) -> np.ndarray:
    """Returns LENGTH samples (LENGTH,): the middle of a longer waveform, or zeros around it."""
    spare = len(waveform) - LENGTH
    if spare >= 0:
        return waveform[spare // 2 : spare // 2 + LENGTH]
    return np.pad(waveform, (-spare // 2, -spare - -spare // 2))


def to_levels(decibels: np.ndarray) -> np.ndarray:
    """Returns the nearest of 256 levels, uint8; beyond QUIETEST and LOUDEST the end ones."""
    levels = (decibels - QUIETEST) * (255 / (LOUDEST - QUIETEST))
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def to_decibels(levels: np.ndarray) -> np.ndarray:
    """Returns what levels stand for, float32, in dB."""
    return levels.astype(np.float32) * np.float32((LOUDEST - QUIETEST) / 255) + np.float32(QUIETEST)
