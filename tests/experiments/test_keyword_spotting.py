import keyword_spotting as spotting
import numpy as np
import pytest
from keyword_spotting import Heard, Times

from condconv_jax.cli import main as condconv
from condconv_jax.data.generated_words import WORDS
from condconv_jax.data.speech import LENGTH, make_noise, write_wav

NAMES = ("no", "yes", "_silence_", "_unknown_")


def test_windows_follow_one_another_to_the_end():
    seen = []
    waveform = np.arange(LENGTH + 3 * 1600 + 7)
    posteriors, times = spotting.listen(
        waveform, 1600, lambda window: window, lambda window: seen.append(window) or np.ones(4) / 4
    )
    assert [window[0] for window in seen] == [0, 1600, 3200, 4800]
    assert {len(window) for window in seen} == {LENGTH}
    assert posteriors.shape == (4, 4)
    assert len(times.features) == len(times.network) == 4


def test_averages_are_of_the_last_windows():
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 9)
    averaged = spotting.average_last(rows, 4)
    for k in range(9):
        np.testing.assert_allclose(averaged[k], rows[max(0, k - 3) : k + 1].mean(axis=0))
    np.testing.assert_allclose(spotting.average_last(rows, 1), rows)


def test_a_keyword_is_heard_once_and_then_nothing_for_a_while():
    ends = 1 + 0.1 * np.arange(20)
    averaged = np.tile([0.1, 0.8, 0.05, 0.05], (20, 1))
    heard = spotting.detect(averaged, ends, NAMES, threshold=0.7, suppressed=0.95)
    assert [(round(one.at, 3), one.word) for one in heard] == [(1.0, "yes"), (2.0, "yes")]
    assert not spotting.detect(averaged, ends, NAMES, threshold=0.81)
    # However sure: these are no keywords.
    for silent in (2, 3):
        assert not spotting.detect(np.eye(4)[[silent] * 20], ends, NAMES, threshold=0.5)


def test_what_was_said_counts_once_and_the_rest_is_wrong():
    word, other = WORDS[:2]
    said = [(word, 1.0, 1.5), ("xos", 3.0, 3.5), (other, 5.0, 5.5)]
    heard = [
        Heard(1.6, word, 0.9),
        Heard(2.4, word, 0.9),  # again
        Heard(3.6, other, 0.9),  # before it was said
        Heard(6.6, other, 0.9),  # too late
    ]
    assert spotting.count_right(heard, said) == (
        "1 of 2 keywords heard; 3 heard that were not said, among 1 other words"
    )


def test_percentiles_are_measured_values_of_nearest_rank():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 201))
    # Of 200 values 99 % are 198.
    assert [spotting.nearest_rank(values, p) for p in (0, 50, 99, 100)] == [1, 100, 198, 200]
    assert spotting.nearest_rank(np.array([7.0]), 99) == 7


def test_the_table_leaves_out_the_first_window():
    times = Times(np.array([1.0, 0.001, 0.001]), np.array([2.0, 0.003, 0.005]))
    table = spotting.timing_table(times, 0.1)
    assert "first window, which compiles: 3.00 s" in table
    assert table.splitlines()[2].split() == ["features", "1.00", "1.00", "1.00"]
    assert table.splitlines()[3].split() == ["network", "4.00", "3.00", "5.00"]
    assert table.splitlines()[4].split() == ["both", "5.00", "4.00", "6.00"]
    assert "real-time factor 0.050, a window every 100 ms" in table
    assert spotting.timing_table(Times(np.array([1.0]), np.array([0.5])), 0.1) == (
        "first window, which compiles: 1.50 s"
    )


def test_a_recording_is_listened_to(tmp_path, monkeypatch, capsys):
    sure = np.array([0.0, 0.9, 0.1, 0.0])
    network = (NAMES, lambda window: window, lambda window: sure if window.any() else sure[::-1])
    monkeypatch.setattr(spotting, "load", lambda workdir, *, best: network)
    waveform = np.zeros(4 * LENGTH, np.int16)
    waveform[2 * LENGTH :] = 1
    (tmp_path / "yes.wav").write_bytes(write_wav(waveform))
    assert spotting.main(["--workdir=any", f"--wav={tmp_path / 'yes.wav'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # From 2 s on it is said: of five windows' posteriors four must say so for an average of 0.7.
    assert [line.split() for line in lines[:2]] == [
        ["2.40", "s", "yes", "0.74"],
        ["3.40", "s", "yes", "0.90"],
    ]
    assert "30 windows after it" in "\n".join(lines)


def test_made_sound_says_keywords_and_others_in_turn():
    waveform, said = spotting.made_sound(6, 0)
    assert waveform.shape == (12 * LENGTH,)
    assert [word in WORDS for word, *_ in said] == [False, True] * 3
    for number, (_, start, end) in enumerate(said):
        assert 2 * number <= start < end <= 2 * number + 2
        assert end - start < 0.7
    again, _ = spotting.made_sound(6, 0)
    np.testing.assert_array_equal(waveform, again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step=2"], r"--step is 2.0; pass up to 1 second"),
        (["--threshold=0"], r"--threshold is 0.0; pass a share"),
        (["--words=0"], r"--words is 0, --seed 0; pass at least 1 and 0"),
        (["--wav=none.wav"], r"No such file"),
        (["--wav=short.wav"], r"short.wav has 100 samples; wants a second at least"),
        (["--wav=broken.wav"], r"broken.wav cannot be read as a WAV file"),
    ],
)
def test_what_cannot_be_listened_to_is_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.wav").write_bytes(write_wav(np.zeros(100, np.int16)))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    assert spotting.main(["--workdir=none", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keyword_spotting.py: ")
    assert message in line


@pytest.mark.slow  # trains a network
def test_words_are_trained_evaluated_predicted_and_listened_to(tmp_path, capsys):
    workdir, recording = tmp_path / "run", tmp_path / "sound.wav"
    settings = [
        "--config=configs/speech_commands/mobilenet_v1.py:0.1,1,generated",
        "--config.data.train=train[:32]",
        "--config.data.eval=validation[:16]",
        "--config.batch_size=16",
        "--config.eval_batch_size=16",
        "--config.epochs=1",
        "--config.schedule.warmup_epochs=0",
    ]
    assert condconv(["train", *settings, f"--workdir={workdir}"]) == 0
    capsys.readouterr()
    recording.write_bytes(write_wav(make_noise(np.random.default_rng(0))))
    assert condconv(["predict", f"--workdir={workdir}", "--top=12", str(recording)]) == 0
    assert "_silence_" in capsys.readouterr().out
    assert spotting.main([f"--workdir={workdir}", "--words=2", "--step=0.5"]) == 0
    printed = capsys.readouterr().out
    assert "2 made words, no speech, in 4 s of noise" in printed
    assert "of 1 keywords heard" in printed
    assert "6 windows after it" in printed


def test_made_sound_is_for_networks_that_know_its_words(monkeypatch, capsys):
    known = (("yes", "no", "_silence_"), None, None)
    monkeypatch.setattr(spotting, "load", lambda workdir, best: known)
    assert spotting.main(["--workdir=other", "--words=2"]) == 1
    assert "which other does not know; pass --wav, or a network of" in capsys.readouterr().err
