"""Log-mel spectrograms: how much power a waveform has in bands as the ear resolves them, over time.

  x -> frames of 25 ms, Hann window -> |DFT|^2 -> triangular bands, even in mel -> 10 log10(. + o)

Window and bands are VGGish's (Hershey et al. 2017, arXiv 1609.09430, section 3.1;
tensorflow/models, research/audioset/vggish/vggish_params.py): 25 ms, 64 bands from 125 to 7500 Hz.
Two things differ. The hop is 1/64 s (15.625 ms) instead of 10 ms, so that a second is 64 frames:
with 64 bands a square, which is what networks for pictures take, and nothing has to be resized. And
bands sum power, not magnitude, so that powers of independent sounds add up.
"""

import functools

import numpy as np

SAMPLE_RATE = 16_000  # Hz
WINDOW = 400  # samples, 25 ms
HOP = 250  # samples, 1/64 s
FFT_LENGTH = 512  # samples; bins are 31.25 Hz apart
NUM_MELS = 64
LOWEST, HIGHEST = 125.0, 7500.0  # Hz, outer edges of the first and the last band
# Power, full-scale sine = 1: makes -90 dB the least there is. Rounding to 16 bits is far below: a
# twelfth of a step squared, 2^-30 / 12, times 150 / 100^2, is -119 dB in a bin.
OFFSET = 1e-9


def hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Returns 1127 ln(1 + f / 700), HTK's mel scale (Young et al., The HTK Book, section 5.4)."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def mel_to_hertz(mel: np.ndarray | float) -> np.ndarray:
    """Returns the inverse of `hertz_to_mel`."""
    return 700.0 * np.expm1(np.asarray(mel, np.float64) / 1127.0)


def band_edges() -> np.ndarray:
    """Returns NUM_MELS + 2 frequencies in Hz; band m rises from edge m to m + 1, falls to m + 2."""
    return mel_to_hertz(np.linspace(hertz_to_mel(LOWEST), hertz_to_mel(HIGHEST), NUM_MELS + 2))


@functools.cache
def mel_weights() -> np.ndarray:
    """Returns the share of each DFT bin in each band, float32 (FFT_LENGTH / 2 + 1, NUM_MELS).

    Triangles over mel, of height 1: from the middle of the first band to that of the last one the
    shares of a bin sum to 1.
    """
    edges = hertz_to_mel(band_edges())
    bins = hertz_to_mel(np.arange(FFT_LENGTH // 2 + 1) * (SAMPLE_RATE / FFT_LENGTH))[:, np.newaxis]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    weights.flags.writeable = False
    return weights


@functools.cache
def noise_freedom() -> np.ndarray:
    """Returns how many independent powers a band of Gaussian noise is the mean of, (NUM_MELS,).

    mean^2 / variance of its power, 1 for a single bin. Bins d apart have spectra correlated by the
    window, r(d) = |sum w^2 e^(-2 pi i d n / N)| / sum w^2, and powers by r^2.
    """
    squares = hann_window().astype(np.float64) ** 2
    correlation = (np.abs(np.fft.rfft(squares, FFT_LENGTH)) / squares.sum()) ** 2
    bins = np.arange(FFT_LENGTH // 2 + 1)
    weights = mel_weights().astype(np.float64)
    variance = np.einsum(
        "im,ij,jm->m", weights, correlation[abs(bins[:, None] - bins)], weights, optimize=True
    )
    return weights.sum(axis=0) ** 2 / variance


@functools.cache
def hann_window() -> np.ndarray:
    """Returns the periodic Hann window, float32 (WINDOW,); it sums to 200, its squares to 150."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    window.flags.writeable = False
    return window


def log_mel(waveform: np.ndarray, *, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Returns the log-mel spectrogram of a waveform.

    Args:
      waveform: int16, or floats in -1..1, (n,), n >= HOP.
      sample_rate: in Hz, 16,000.

    Returns:
      float32 (n // HOP, NUM_MELS), in dB: 0 is the power that a sine from -1 to 1 has in the bin
      of its frequency, -90 that of silence. Frame i is centred on sample (i + 1/2) * HOP; beyond
      its ends the waveform is taken for silent.

    Raises:
      ValueError: if the waveform has another rate, shape or type, or is shorter than one hop.
    """
    waveform = checked_waveform("log_mel", waveform, sample_rate)
    frames = len(waveform) // HOP
    if not frames:
        raise ValueError(f"log_mel: got {len(waveform)} samples; wants at least {HOP}, one hop")
    margin = (WINDOW - HOP) // 2
    padded = np.pad(waveform, (margin, margin))
    views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
    spectra = np.fft.rfft(views * hann_window(), FFT_LENGTH, axis=1)
    # A sine of amplitude a in the middle of a bin gives a * 200 / 2.
    power = (spectra.real**2 + spectra.imag**2) * np.float32(100.0**-2)
    # Not by BLAS: its threads take 20 ms for the product of a second, instead of 0.3, where every
    # core is busy, as while a network trains (two cores of an Intel Xeon at 2.1 GHz).
    bands = np.einsum("tk,km->tm", power, mel_weights())
    return 10 * np.log10(bands + np.float32(OFFSET))


def checked_waveform(function: str, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns a waveform as float32 (n,) in -1..1.

    Raises:
      ValueError: naming `function`, if it is no waveform of one channel at 16 kHz.
    """
    if sample_rate != SAMPLE_RATE:
        raise ValueError(
            f"{function}: got a sample rate of {sample_rate} Hz; wants {SAMPLE_RATE}; resample it, "
            f"as with ffmpeg -i IN -ar {SAMPLE_RATE} -ac 1 OUT.wav"
        )
    if waveform.ndim != 1:
        raise ValueError(
            f"{function}: got a waveform {waveform.shape}; wants one channel, (n,); take the mean "
            f"of the channels"
        )
    if waveform.dtype == np.int16:
        return waveform.astype(np.float32) * np.float32(2.0**-15)
    if not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(
            f"{function}: got a waveform {waveform.dtype}; wants int16, or floats in -1..1"
        )
    if not np.isfinite(waveform).all():
        raise ValueError(f"{function}: the waveform has values that are not finite; wants -1..1")
    return waveform.astype(np.float32)
