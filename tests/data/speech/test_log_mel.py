"""Log-mel spectrograms against what the formulas give by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condconv_jax.data.speech.log_mel import (
    HOP,
    NUM_MELS,
    OFFSET,
    SAMPLE_RATE,
    WINDOW,
    band_edges,
    hann_window,
    hertz_to_mel,
    log_mel,
    mel_to_hertz,
    mel_weights,
    noise_freedom,
)

TIME = np.arange(SAMPLE_RATE) / SAMPLE_RATE
INSIDE = slice(1, -1)  # frames that do not reach beyond the ends of the waveform


def tone(hertz, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * TIME + 0.3)


def power(waveform):
    """Of the bands, full-scale sine = 1, without the offset."""
    return 10 ** (log_mel(waveform).astype(np.float64) / 10) - OFFSET


def test_the_mel_scale_is_htks():
    # 2595 log10(1 + f / 700): 1000 Hz are 1000 mel within rounding of the constants.
    np.testing.assert_allclose(hertz_to_mel(1000.0), 1000, rtol=1e-4)
    np.testing.assert_allclose(hertz_to_mel(700.0), 1127 * np.log(2))
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(band_edges())), band_edges())
    np.testing.assert_allclose(band_edges()[[0, -1]], (125, 7500))


def test_window_and_shares_have_the_sums_that_are_counted_on():
    window = hann_window().astype(np.float64)
    np.testing.assert_allclose((window.sum(), (window**2).sum()), (200, 150), rtol=1e-6)
    edges = band_edges()
    hertz = np.arange(257) * 31.25
    between = (hertz >= edges[1]) & (hertz <= edges[-2])
    np.testing.assert_allclose(mel_weights()[between].sum(axis=1), 1, atol=1e-5)
    assert (mel_weights()[(hertz < 125) | (hertz > 7500)] == 0).all()
    # VGGish's bands: each has a bin, though at the bottom their width is not two bins.
    assert (mel_weights().max(axis=0) > 0).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(300, 7300))
def test_a_tone_lands_in_a_band_whose_edges_contain_it(hertz):
    # From 300 Hz on a band is wider than two bins, and more of the tone's main lobe, of 160 Hz, is
    # in no other.
    band = log_mel(tone(hertz))[INSIDE].mean(axis=0).argmax()
    assert band_edges()[band] < hertz < band_edges()[band + 2]


def test_power_is_kept_from_the_waveform_to_the_bands():
    # Parseval: the squares of half the 512-point DFT sum to 256 times those of the windowed frame,
    # for tones away from 0 and 8 kHz; between the first and the last band's middles shares sum
    # to 1. What the Hann window's side lobes leave outside is below 1e-4 of it.
    waveform = tone(700) + tone(1900, 0.2) + tone(5000, 0.1)
    frame = 20
    start = frame * HOP - (WINDOW - HOP) // 2
    windowed = waveform[start : start + WINDOW] * hann_window()
    expected = 256 * (windowed**2).sum() / 100**2
    np.testing.assert_allclose(power(waveform)[frame].sum(), expected, rtol=1e-3)


def test_a_full_scale_sine_in_the_middle_of_a_bin_has_power_1_there():
    # Bin 64 is 2 kHz. A Hann window of 400 in a DFT of 512 gives the bins at distance d the share
    # (W(d) / W(0))^2 of it, W the window's transform: the sum over the bands is 256 * 150 / 2 /
    # 100^2 = 1.92 bins (Parseval, the sine's mean square being 1/2).
    total = power(tone(2000, 1.0))[INSIDE].sum(axis=1)
    np.testing.assert_allclose(total, 1.92, rtol=1e-3)


def test_white_noise_has_power_by_the_bands_shares():
    # E |X_k|^2 = s^2 sum w^2 = 150 s^2 in every bin, so a band has 0.015 s^2 times its shares.
    sigma = 0.1
    noise = np.random.default_rng(0).normal(0, sigma, 100 * SAMPLE_RATE).astype(np.float32)
    expected = 0.015 * sigma**2 * mel_weights().sum(axis=0)
    # Of 6,400 frames, a third overlapping, the mean of an exponential variable varies by
    # 1/sqrt(4000) = 1.6 %, its variance by sqrt(8 / 4000) = 4.5 %: five and three times that.
    found = power(noise)[INSIDE]
    np.testing.assert_allclose(found.mean(axis=0), expected, rtol=0.08)
    freedom = found.mean(axis=0) ** 2 / found.var(axis=0)
    np.testing.assert_allclose(freedom, noise_freedom(), rtol=0.14)


@pytest.mark.parametrize("frame", [1, 30, 62])
def test_a_click_is_seen_by_the_one_frame_around_it(frame):
    # In the middle of its hop the window is 1: |X_k|^2 = a^2 in all bins. 250 samples on, it is
    # outside of the next window, which reaches 200 to either side.
    waveform = np.zeros(SAMPLE_RATE, np.float32)
    waveform[frame * HOP + HOP // 2] = 0.5
    levels = log_mel(waveform)
    expected = 10 * np.log10(0.25 / 100**2 * mel_weights().sum(axis=0) + OFFSET)
    np.testing.assert_allclose(levels[frame], expected, atol=1e-4)
    np.testing.assert_allclose(np.delete(levels, frame, axis=0), -90, atol=1e-4)


def test_silence_is_the_lowest_level():
    silence = log_mel(np.zeros(SAMPLE_RATE, np.float32))
    assert silence.shape == (64, NUM_MELS)
    assert silence.dtype == np.float32
    np.testing.assert_allclose(silence, -90, atol=1e-4)


def test_gain_adds_decibels():
    waveform = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE)
    soft, loud = log_mel(waveform), log_mel(10 * waveform)
    # log10(100 p + o) - log10(p + o) = 2 - log10(1 + o/p) + ...: at most 10 o / (p ln 10) below.
    below = 10 * OFFSET / (10 ** (soft / 10) - OFFSET).clip(1e-12) / np.log(10)
    assert (loud - soft <= 20 + 1e-3).all()
    assert (loud - soft >= 20 - below - 1e-3).all()


def test_integers_are_the_floats_that_they_stand_for():
    integers = np.random.default_rng(0).integers(-(2**15), 2**15, 4000).astype(np.int16)
    np.testing.assert_array_equal(log_mel(integers), log_mel(integers / np.float32(2**15)))
    np.testing.assert_array_equal(log_mel(integers), log_mel(integers / 2.0**15))


def test_frames_follow_the_hop():
    rng = np.random.default_rng(0)
    for length in (250, 499, 500, 16_000, 16_249):
        assert log_mel(rng.normal(size=length) / 10).shape == (length // HOP, NUM_MELS)
    # A second begun one hop later has the same frames but for those at the ends.
    waveform = (rng.normal(size=17_000) / 10).astype(np.float32)
    np.testing.assert_allclose(
        log_mel(waveform[:16_000])[2:-1], log_mel(waveform[HOP : 16_000 + HOP])[1:-2], atol=1e-4
    )


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros(16_000), 8000, r"got a sample rate of 8000 Hz; wants 16000; resample it"),
        (np.zeros((16_000, 2)), 16_000, r"waveform \(16000, 2\); wants one channel, \(n,\)"),
        (np.zeros(16_000, np.uint8), 16_000, r"got a waveform uint8; wants int16, or floats"),
        (np.full(16_000, np.nan), 16_000, r"values that are not finite; wants -1\.\.1"),
        (np.zeros(249), 16_000, r"got 249 samples; wants at least 250, one hop"),
    ],
)
def test_what_is_no_waveform_is_refused(waveform, rate, message):
    with pytest.raises(ValueError, match=message):
        log_mel(waveform, sample_rate=rate)
