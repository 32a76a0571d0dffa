"""Bytes of a WAV file in, waveform out, by the standard library."""

import io
import wave

import numpy as np

from condconv_jax.data.speech.log_mel import SAMPLE_RATE

# What `wave` raises for damaged files: chunks missing or cut short, unknown encodings.
DAMAGES = (wave.Error, EOFError)


def is_wav(data: bytes | memoryview) -> bool:
    """Returns whether a file's bytes begin as those of a WAV file do; WebP is RIFF too."""
    return bytes(data[:4]) == b"RIFF" and bytes(data[8:12]) == b"WAVE"


def read_wav(data: bytes | memoryview, name: str) -> np.ndarray:
    """Returns the samples of a WAV file, int16 (n,), n >= 1.

    Args:
      data: the whole file.
      name: what the error message calls it, usually its path.

    Raises:
      ValueError: if it is intact but has another rate than 16 kHz, several channels, or samples
        that are not of 16 bits.
      wave.Error, EOFError: (`DAMAGES`) if it is damaged or compressed.
    """
    with wave.open(io.BytesIO(bytes(data))) as file:
        rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        samples = file.readframes(file.getnframes())
        announced = file.getnframes() * channels * width
    if (rate, channels, width) != (SAMPLE_RATE, 1, 2):
        raise ValueError(
            f"read_wav: {name} has {channels} channel{'s' if channels > 1 else ''} of "
            f"{8 * width} bits at {rate} Hz; wants 1 of 16 bits at {SAMPLE_RATE} Hz; convert it, "
            f"as with ffmpeg -i IN -ar {SAMPLE_RATE} -ac 1 -c:a pcm_s16le OUT.wav"
        )
    if not samples or len(samples) < announced:
        raise EOFError(f"{len(samples)} of {announced} bytes of samples")
    return np.frombuffer(samples, "<i2").astype(np.int16)


def write_wav(waveform: np.ndarray) -> bytes:
    """Returns the WAV file of a waveform, int16 (n,) at 16 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(waveform.astype("<i2").tobytes())
    return buffer.getvalue()
