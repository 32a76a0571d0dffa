"""Words that are made: the same at every index, of their class, and not alike."""

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data.generated_words import CLASS_NAMES, WORDS, make_sound
from condconv_jax.data.speech import LENGTH, PHONES, make_stream, make_word, sound_picture


@pytest.fixture(scope="module")
def source():
    return data.open_source("generated_words", "train")


def test_what_there_is(source):
    assert (len(source), source.num_classes) == (4800, 12)
    assert source.class_names == (*WORDS, "_silence_", "_unknown_")
    assert all(set(word) <= set(PHONES) for word in WORDS)
    labels = [source[index]["label"] for index in range(24)]
    assert labels == [*range(12), *range(12)]
    assert len(data.open_source("generated_words", "test[:24]")) == 24


def test_a_sample_depends_on_seed_split_and_index_alone(source):
    again = data.open_source("generated_words", "train")
    for index in (35, 3):
        np.testing.assert_array_equal(source[index]["image"], again[index]["image"])
        np.testing.assert_array_equal(source[index]["image"], sound_picture(again.waveform(index)))
    others = [
        data.open_source("generated_words", "validation"),
        data.open_source("generated_words", "train", seed=1),
    ]
    for other in others:
        assert (other.waveform(3) != source.waveform(3)).any()
    assert (source.waveform(3) != source.waveform(15)).any()  # of one class


def test_a_stream_has_its_words_where_it_says():
    waveform, spans = make_stream(["sio", "mua"], np.random.default_rng(0), level=-60.0)
    assert waveform.shape == (4 * LENGTH,)
    loudness = np.convolve((waveform / 2.0**15) ** 2, np.ones(400) / 400, "same")
    inside = np.zeros(len(waveform), bool)
    for start, end in spans:
        inside[round(start * 16_000) : round(end * 16_000)] = True
    # Words are at least as strong as the noise, and add to it.
    assert loudness[inside].mean() > 1.5 * loudness[~inside].mean()


def test_sounds_are_a_second_and_do_not_clip(source):
    for index in range(48):
        waveform = source.waveform(index)
        assert waveform.dtype == np.int16
        assert waveform.shape == (LENGTH,)
        assert abs(waveform.astype(int)).max() > 0
        assert (abs(waveform.astype(int)) >= 2**15 - 1).mean() < 1e-3


def test_unknown_words_are_none_of_the_ten(monkeypatch):
    said = []

    def record(phones, rng):
        said.append(phones)
        return np.zeros(LENGTH, np.int16)

    monkeypatch.setattr("condconv_jax.data.generated_words.make_word", record)
    for seed in range(200):
        make_sound("_unknown_", np.random.default_rng(seed))
    assert len(said) == 200
    assert not set(said) & set(WORDS)
    assert all(len(set(word)) == 3 for word in said)
    make_sound("soi", np.random.default_rng(0))
    assert said[-1] == "soi"
    assert set(CLASS_NAMES) >= set(WORDS)


@pytest.mark.parametrize(("phone", "lowest", "highest"), [("s", 3000, 7500), ("m", 125, 800)])
def test_power_lies_where_the_formants_are(monkeypatch, phone, lowest, highest):
    # Formants of s begin at 4.5 kHz, times 0.85 or more; the nasal's strongest is at 250 Hz.
    monkeypatch.setattr("condconv_jax.data.speech.synthesis._noise", lambda *_: np.zeros(LENGTH))
    for seed in range(8):
        waveform = make_word([phone] * 3, np.random.default_rng(seed)).astype(float)
        power = np.abs(np.fft.rfft(waveform)) ** 2  # bins of 1 Hz
        assert power[lowest:highest].sum() > 0.8 * power[:8000].sum()


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"unknown split 'val'.*did you mean|choose one of"):
        data.open_source("generated_words", "val")
    with pytest.raises(ValueError, match=r"got path 'words', but these words are made"):
        data.open_source("generated_words", "train", path="words")
    with pytest.raises(ValueError, match=r"got seed -1; wants 0 or more"):
        data.open_source("generated_words", "train", seed=-1)
    rng = np.random.default_rng(0)
    for phones in ("", "aeiou"):
        with pytest.raises(ValueError, match=rf"make_word: got {len(phones)} phones; wants 1 to 4"):
            make_word(phones, rng)
    with pytest.raises(ValueError, match=r"make_word: unknown phone 'z'"):
        make_stream(["aze"], rng)
