"""Sounds that are made, in the manner of words: a pitch, formants that move, noise around them.

Not speech, and not meant to pass for it: data of which there is as much as wanted, for tests, for
timing and for showing that a pipeline learns. A source of pulses or noise goes through resonances
(formants) that move from one phone to the next, frame by frame; that is Klatt's idea of a
synthesiser (Klatt 1980, J. Acoust. Soc. Am. 67, 971) with all but its principle left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from condconv_jax.data.speech.log_mel import SAMPLE_RATE
from condconv_jax.data.speech.picture import LENGTH
from condconv_jax.names import unknown_name

FRAME = 320  # samples, 20 ms, half overlapping
FFT_LENGTH = 512  # samples; resonances ring beyond their frame


@dataclass(frozen=True)
class Phone:
    """One steady sound.

    Attributes:
      formants: three resonances in Hz.
      gains: of each, in dB.
      bandwidths: of each, in Hz.
      voicing: share of pulses in the source, the rest is noise.
    """

    formants: tuple[float, float, float]
    gains: tuple[float, float, float] = (0.0, -8.0, -16.0)
    bandwidths: tuple[float, float, float] = (70.0, 100.0, 140.0)
    voicing: float = 1.0


# Vowels: mean formants of men in Peterson and Barney 1952, J. Acoust. Soc. Am. 24, 175, table II.
# The rest, a nasal and two fricatives, are only like it.
PHONES = {
    "a": Phone((730, 1090, 2440)),
    "e": Phone((530, 1840, 2480)),
    "i": Phone((270, 2290, 3010)),
    "o": Phone((570, 840, 2410)),
    "u": Phone((300, 870, 2240)),
    "m": Phone((250, 1100, 2300), gains=(-4.0, -26.0, -32.0)),
    "s": Phone((4500, 5600, 6700), (-14.0, -8.0, -10.0), (700, 900, 900), voicing=0.0),
    "x": Phone((2300, 3200, 4300), (-12.0, -8.0, -12.0), (500, 700, 900), voicing=0.0),
}


def make_word(phones: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Returns one saying of a word in noise.

    Pitch (90 to 260 Hz) and its slope, size of the vocal tract (formants times 0.85 to 1.2), tempo
    (0.09 to 0.2 s a phone), onset, the noise's colour and level (SNR -10 to 10 dB over the word),
    and the level of the louder of the two (-40 to -18 dB, full-scale sine = 0) are drawn anew.

    Args:
      phones: names in `PHONES`, up to four.
      rng: draws all of it.

    Returns:
      int16 (LENGTH,), a second.

    Raises:
      ValueError: if there are more phones, none, or unknown ones.
    """
    word = _voice(phones, rng)
    loudest, snr = rng.uniform(-40, -18), rng.uniform(-10, 10)
    level = loudest + min(0.0, snr)
    word *= _amplitude(level) / np.sqrt(np.mean(word**2))
    sound = _noise(level - snr, rng)
    onset = int(rng.integers(LENGTH - len(word) + 1))
    sound[onset : onset + len(word)] += word
    return _to_int16(sound)


def make_stream(
    words: Sequence[Sequence[str]], rng: np.random.Generator, *, level: float = -45.0
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Returns words one after another in one noise, one somewhere in each two seconds.

    Args:
      words: phones of each, as of `make_word`, at least one word.
      rng: draws all else, as `make_word`; the SNR is 0 to 10 dB.
      level: of the noise, dB.

    Returns:
      int16 (2 * LENGTH * len(words),), and where each word begins and ends, in seconds.

    Raises:
      ValueError: as `make_word`.
    """
    slot = 2 * LENGTH
    sound, spans = _noise(level, rng, slot * len(words)), []
    for number, phones in enumerate(words):
        word = _voice(phones, rng)
        word *= _amplitude(level + rng.uniform(0, 10)) / np.sqrt(np.mean(word**2))
        start = number * slot + int(rng.integers(slot - len(word) + 1))
        sound[start : start + len(word)] += word
        spans.append((start / SAMPLE_RATE, (start + len(word)) / SAMPLE_RATE))
    return _to_int16(sound), spans


def make_noise(rng: np.random.Generator) -> np.ndarray:
    """Returns noise of random level (-70 to -25 dB) and colour, int16 (LENGTH,), a second."""
    return _to_int16(_noise(rng.uniform(-70, -25), rng))


def _voice(names: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """A word without noise, of any level, float64 (n,), n < LENGTH."""
    if not 1 <= len(names) <= 4:
        raise ValueError(f"make_word: got {len(names)} phones; wants 1 to 4, to fit into a second")
    for name in names:
        if name not in PHONES:
            raise unknown_name("make_word", "phone", name, PHONES)
    phones = [PHONES[name] for name in names]
    lengths = rng.uniform(0.09, 0.2, len(phones)) * SAMPLE_RATE
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    samples = np.arange(total)

    slope, pitch = rng.uniform(-0.3, 0.2), np.exp(rng.uniform(np.log(90), np.log(260)))
    phase = np.cumsum(pitch * (1 + slope * samples / total)) / SAMPLE_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    pulses *= np.sqrt(SAMPLE_RATE / pitch)  # the power of the noise
    noise = rng.standard_normal(total)

    # Each phone holds its middle third; between two phones everything moves evenly.
    corners = np.stack([ends - lengths * 2 / 3, ends - lengths / 3], axis=1).ravel()

    def course(values: Sequence[float], at: np.ndarray) -> np.ndarray:
        return np.interp(at, corners, np.repeat(values, 2))

    voicing = course([phone.voicing for phone in phones], samples)
    source = voicing * pulses + (1 - voicing) * noise

    tract = rng.uniform(0.85, 1.2)
    starts = np.arange(-FRAME // 2, total, FRAME // 2)
    hertz = np.arange(FFT_LENGTH // 2 + 1) * (SAMPLE_RATE / FFT_LENGTH)
    response = np.zeros((len(starts), len(hertz)))
    for k in range(3):
        at = starts + FRAME / 2
        formant = tract * course([phone.formants[k] for phone in phones], at)[:, np.newaxis]
        width = course([phone.bandwidths[k] for phone in phones], at)[:, np.newaxis]
        gain = course([phone.gains[k] for phone in phones], at)[:, np.newaxis]
        response += 10 ** (gain / 20) / (1 + ((hertz - formant) / width) ** 2)

    # Overlapping frames through their responses, added up again. A response without phase rings
    # before and after: the frame is put in the middle.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    margin = (FFT_LENGTH - FRAME) // 2
    padded = np.pad(source, FRAME)
    out = np.zeros(total + 2 * FFT_LENGTH)
    frames = np.stack([padded[FRAME + start :][:FRAME] for start in starts]) * window
    frames = np.pad(frames, ((0, 0), (margin, FFT_LENGTH - FRAME - margin)))
    shaped = np.fft.irfft(np.fft.rfft(frames, axis=1) * response, FFT_LENGTH, axis=1)
    for start, frame in zip(starts, shaped, strict=True):
        out[FFT_LENGTH + start - margin :][:FFT_LENGTH] += frame
    word = out[FFT_LENGTH:][:total]

    # 20 ms at either end, so that words do not begin with a click.
    ramp = np.minimum(1, np.minimum(samples, samples[::-1]) / (0.02 * SAMPLE_RATE))
    return word * ramp


def _noise(level: float, rng: np.random.Generator, length: int = LENGTH) -> np.ndarray:
    """Noise of a level in dB whose power falls as 1 / f^a, a from 0 to 2, float64 (length,)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    # Flat below 20 Hz, where it would otherwise be strongest and nobody hears it.
    hertz = np.maximum(20.0, np.fft.rfftfreq(length, 1 / SAMPLE_RATE))
    noise = np.fft.irfft(spectrum * hertz ** (-rng.uniform(0, 2) / 2), length)
    return noise * (_amplitude(level) / np.sqrt(np.mean(noise**2)))


def _amplitude(level: float) -> float:
    """The root mean square of a level in dB; that of a full-scale sine is 0 dB."""
    return float(np.sqrt(0.5) * 10 ** (level / 20))


def _to_int16(sound: np.ndarray) -> np.ndarray:
    return np.rint(sound * 2.0**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
