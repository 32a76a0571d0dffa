"""Sounds as pictures: their length, levels and direction; WAV files; augmentation."""

import io
import wave

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data.decoding import CorruptSampleError, decode_image
from condconv_jax.data.speech import (
    LENGTH,
    log_mel,
    read_wav,
    sound_picture,
    to_decibels,
    to_levels,
    write_wav,
)
from condconv_jax.data.speech.augment import BackgroundNoise, TimeShift
from condconv_jax.data.speech.log_mel import noise_freedom


@pytest.fixture
def waveform():
    return np.random.default_rng(0).integers(-3000, 3000, LENGTH).astype(np.int16)


def test_a_second_is_a_square_of_three_equal_channels(waveform):
    picture = sound_picture(waveform)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert (picture == picture[..., :1]).all()
    np.testing.assert_array_equal(picture[::-1, :, 0].T, to_levels(log_mel(waveform)))


def test_time_goes_right_and_frequency_up():
    time = np.arange(LENGTH // 2) / 16_000
    low_then_high = np.concatenate([np.sin(2 * np.pi * f * time) / 2 for f in (300, 5000)])
    picture = sound_picture(low_then_high)[..., 0].astype(int)
    assert picture[32:, :30].max() > picture[:32, :30].max()
    assert picture[:32, 34:].max() > picture[32:, 34:].max()


def test_levels_are_within_half_a_step():
    decibels = np.linspace(-90, 0, 10_001)
    # A step is 90 / 255 dB; float32 adds some 1e-5.
    error = np.abs(to_decibels(to_levels(decibels)) - decibels)
    assert error.max() <= 90 / 255 / 2 + 1e-4
    np.testing.assert_array_equal(to_levels(to_decibels(np.arange(256))), np.arange(256))
    assert to_levels(np.array([-200.0, -90, 0, 30])).tolist() == [0, 0, 255, 255]


def test_silence_is_black(waveform):
    assert (sound_picture(np.zeros(LENGTH, np.int16)) == 0).all()
    # Short sounds get silence on both sides, the odd sample after.
    short = sound_picture(waveform[:4001])
    assert (short[:, :23] == 0).all()
    assert (short[:, -23:] == 0).all()
    padded = np.pad(waveform[:4001], (5999, 6000))
    np.testing.assert_array_equal(short, sound_picture(padded))


@pytest.mark.parametrize("spare", [1, 250, 16_001])
def test_long_sounds_are_cut_to_their_middle(waveform, spare):
    sides = np.full(spare // 2, 20_000, np.int16), np.full(spare - spare // 2, 20_000, np.int16)
    long = np.concatenate([sides[0], waveform, sides[1]])
    np.testing.assert_array_equal(sound_picture(long), sound_picture(waveform))


def test_what_is_no_second_of_sound_is_refused(waveform):
    with pytest.raises(ValueError, match=r"sound_picture: got no samples"):
        sound_picture(waveform[:0])
    with pytest.raises(ValueError, match=r"wants one channel"):
        sound_picture(np.stack([waveform, waveform], axis=1))
    with pytest.raises(ValueError, match=r"44100 Hz; wants 16000"):
        sound_picture(waveform, sample_rate=44_100)


def wav(samples, *, rate=16_000, channels=1, width=2):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


def test_wav_files_are_read_as_written_and_seen_as_pictures(waveform):
    np.testing.assert_array_equal(read_wav(write_wav(waveform), "a.wav"), waveform)
    picture = decode_image(write_wav(waveform), "a.wav")
    np.testing.assert_array_equal(picture, sound_picture(waveform))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 44_100}, r"x\.wav has 1 channel of 16 bits at 44100 Hz; wants 1 of 16 bits at"),
        ({"channels": 2}, r"2 channels of 16 bits at 16000 Hz; .* ffmpeg -i IN -ar 16000 -ac 1"),
        ({"width": 1}, r"1 channel of 8 bits"),
    ],
)
def test_wav_files_of_another_form_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        decode_image(wav(bytes(400), **options), "x.wav")
    # A data set of another rate is not to be passed over as damaged, file by file.
    assert not isinstance(caught.value, CorruptSampleError)


@pytest.mark.parametrize("length", [13, 30, 44, 1000])
def test_wav_files_that_are_cut_short_are_damaged(waveform, length):
    with pytest.raises(CorruptSampleError, match=r"cannot read the sound of x\.wav"):
        decode_image(write_wav(waveform)[:length], "x.wav")


def test_a_folder_of_wav_files_is_a_source(tmp_path, waveform):
    for number, name in enumerate(("no/0.wav", "no/1.WAV", "yes/0.wav")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(write_wav(waveform + number))
    source = data.open_source("folder", "train", path=str(tmp_path))
    assert source.class_names == ("no", "yes")
    assert sorted(sample["label"] for sample in source) == [0, 0, 1]
    expected = {sound_picture(waveform + number).tobytes() for number in range(3)}
    assert {sample["image"].tobytes() for sample in source} == expected


def test_sounds_beside_pictures_are_no_samples(class_folder, waveform):
    (class_folder / "ant" / "ant.wav").write_bytes(write_wav(waveform))
    assert len(data.open_source("folder", "train", path=str(class_folder))) == 12


def test_time_shift_moves_and_leaves_silence(waveform):
    picture = sound_picture(waveform)
    seen = set()
    for seed in range(40):
        moved = TimeShift(2)(picture, np.random.default_rng(seed))
        (shift,) = [
            k
            for k in range(-2, 3)
            if (moved[:, max(0, k) : 64 + k] == picture[:, max(0, -k) : 64 - k]).all()
            and (moved[:, : max(0, k)] == 0).all()
            and (moved[:, 64 + min(0, k) :] == 0).all()
        ]
        seen.add(shift)
    assert seen == {-2, -1, 0, 1, 2}


def test_noise_is_added_in_power():
    # Of one level and no colour: -50 dB of noise on -50 dB of sound are -47 dB on average.
    step = BackgroundNoise(1.0, -50.0, -50.0, slope=0.0)
    quiet = np.zeros((64, 64, 3), np.uint8)
    level = int(to_levels(np.array(-50.0)))
    sound = np.full_like(quiet, level)
    for picture, expected in ((quiet, -50), (sound, -46.99)):
        noisy = step(picture, np.random.default_rng(0))
        assert (noisy == noisy[..., :1]).all()
        power = (10 ** (to_decibels(noisy[..., 0]) / 10)).mean()
        # 4,096 cells whose powers vary by as much as their mean: 1.6 %, or 0.07 dB; a level, 0.35.
        assert abs(10 * np.log10(power) - expected) < 0.25


def test_noise_varies_as_gaussian_noise_does():
    drawn = BackgroundNoise(1.0, -40.0, -40.0, slope=0.0)(
        np.zeros((64, 4096, 3), np.uint8), np.random.default_rng(1)
    )
    power = 10 ** (to_decibels(drawn[::-1, :, 0]).astype(np.float64) / 10)
    made = power.mean(axis=1) ** 2 / power.var(axis=1)
    # Of 4,096 exponential powers the variance is known to sqrt(8 / 4096) = 4.4 %: three times that.
    np.testing.assert_allclose(made, noise_freedom(), rtol=0.14)


def test_coloured_noise_falls_with_frequency():
    step = BackgroundNoise(1.0, -45.0, -45.0, slope=30.0)
    picture = np.zeros((64, 512, 3), np.uint8)
    falls = []
    for seed in range(20):
        power = 10 ** (to_decibels(step(picture, np.random.default_rng(seed))[..., 0]) / 10)
        level = 10 * np.log10(power.mean(axis=1))
        # The middle stays. Levels of 512 cells are known to 0.2 dB where all vary by themselves.
        assert abs(level[30:34].mean() + 45) < 1.5
        falls.append(level[-2:].mean() - level[:2].mean())
    assert min(falls) > -1
    assert 20 < max(falls) < 31


def test_noise_wants_pictures_of_sounds():
    with pytest.raises(ValueError, match=r"a picture of 32 rows; wants 64, one per band"):
        BackgroundNoise(1.0)(np.zeros((32, 32, 3), np.uint8), np.random.default_rng(0))
    untouched = np.zeros((64, 64, 3), np.uint8)
    assert BackgroundNoise(0.0)(untouched, np.random.default_rng(0)) is untouched


def test_training_on_sounds_augments_and_evaluation_does_not(waveform):
    options = {"crop": "pad", "padding": 0, "flip": False, "augment": "spectrogram"}
    sample = {"image": sound_picture(waveform), "label": 3}
    train, evaluate = (data.make_transforms(64, train=t, **options) for t in (True, False))
    images = [train(sample, np.random.default_rng(seed))["image"] for seed in range(4)]
    assert len({image.tobytes() for image in images}) == 4
    np.testing.assert_array_equal(
        evaluate(sample, np.random.default_rng(0))["image"], sample["image"]
    )
