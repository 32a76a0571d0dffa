"""Keywords in a stream of sound, one window at a time, by a trained network; and what it takes.

    python experiments/keyword_spotting.py --workdir=runs/generated_8                 # made sound
    python experiments/keyword_spotting.py --workdir=runs/words_8 --wav=meeting.wav   # 16 kHz, mono

A window of a second every 100 ms goes through features and network at batch 1, as it would live.
Posteriors are averaged over the last half second; a keyword whose average reaches the threshold is
said to be heard at the window's end, and then nothing for a while (Chen, Parada and Heigold 2014,
Small-footprint keyword spotting using deep neural networks, ICASSP; averaging and suppression as in
tensorflow/examples/speech_commands/recognize_commands.py). `_silence_` and `_unknown_` are none.

Made sound says words at known times in noise, half of them none of the keywords, so that what was
missed and what was made up can be counted; it is no speech.

Times are of one window, features and network apart, in milliseconds: the mean, and percentiles of
nearest rank, the least time measured that so many percent of the windows did not exceed. The first
window, which compiles, is reported by itself and is in none of them. The real-time factor is the
mean time of a window by the step from one to the next: below 1, it keeps up.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condconv_jax.data.generated_words import WORDS, unknown_word
from condconv_jax.data.speech import LENGTH, SAMPLE_RATE, make_stream, read_wav, sound_picture

AVERAGED = 0.5  # s of windows whose posteriors are averaged
SUPPRESSED = 1.0  # s after a keyword in which none is said to be heard
LATE = 1.0  # s after its end until which a made word may be heard: it is still in the window


class Heard(NamedTuple):
    """A keyword: when, in seconds, which, and its averaged posterior."""

    at: float
    word: str
    score: float


class Times(NamedTuple):
    """Seconds that each window took, (n,) each."""

    features: np.ndarray
    network: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Listens and prints; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of a trained network")
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    parser.add_argument("--wav", type=Path, metavar="FILE", help="to listen to; made sound if none")
    parser.add_argument("--words", type=int, default=40, help="of made sound (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="of made sound (default 0)")
    parser.add_argument("--step", type=float, default=0.1, help="s between windows (default 0.1)")
    parser.add_argument("--threshold", type=float, default=0.7, help="averaged (default 0.7)")
    parsed = parser.parse_args(arguments)
    try:
        run(parsed)
    except (OSError, ValueError) as error:
        print(f"keyword_spotting.py: {error}", file=sys.stderr)
        return 1
    return 0


def run(parsed: argparse.Namespace) -> None:
    """Listens to what the arguments name.

    Raises:
      ValueError: for an argument out of its range, or a recording that cannot be listened to.
      FileNotFoundError: if there is no such recording or work directory.
    """
    if not 1 / SAMPLE_RATE <= parsed.step <= 1:
        raise ValueError(f"--step is {parsed.step}; pass up to 1 second")
    if not 0 < parsed.threshold <= 1:
        raise ValueError(f"--threshold is {parsed.threshold}; pass a share, above 0 to 1")
    said: list[tuple[str, float, float]] = []
    if parsed.wav is None:
        waveform, said = made_sound(parsed.words, parsed.seed)
        print(f"{len(said)} made words, no speech, in {len(waveform) / SAMPLE_RATE:.0f} s of noise")
    else:
        waveform = read_recording(parsed.wav)
    class_names, see, classify = load(parsed.workdir, best=parsed.best)
    if said and (unknown := [word for word in WORDS if word not in class_names]):
        raise ValueError(
            f"made sound has words like {unknown[0]!r}, which {parsed.workdir} does not know; "
            "pass --wav, or a network of configs/speech_commands/mobilenet_v1.py:generated"
        )

    step = round(parsed.step * SAMPLE_RATE)
    posteriors, times = listen(waveform, step, see, classify)
    ends = (LENGTH + step * np.arange(len(posteriors))) / SAMPLE_RATE
    averaged = average_last(posteriors, max(1, round(AVERAGED / parsed.step)))
    heard = detect(averaged, ends, class_names, threshold=parsed.threshold)
    for one in heard:
        print(f"{one.at:8.2f} s  {one.word:<12} {one.score:.2f}")
    if said:
        print(count_right(heard, said))
    print("\n" + timing_table(times, step / SAMPLE_RATE))


def made_sound(count: int, seed: int) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Returns a stream, int16 (n,), and its words with their beginnings and ends in seconds.

    Every other word is a keyword of the source `generated_words`.

    Raises:
      ValueError: if count or seed is out of its range.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"--words is {count}, --seed {seed}; pass at least 1 and 0")
    rng = np.random.default_rng(seed)
    words = [WORDS[rng.integers(len(WORDS))] if k % 2 else unknown_word(rng) for k in range(count)]
    waveform, spans = make_stream(words, rng)
    return waveform, [(word, *span) for word, span in zip(words, spans, strict=True)]


def read_recording(path: Path) -> np.ndarray:
    """Returns a recording of at least a second, int16 (n,).

    Raises:
      ValueError: if it is damaged, shorter, or not of 16 kHz, one channel and 16 bits.
    """
    from condconv_jax.data.speech.wav import DAMAGES

    try:
        waveform = read_wav(path.read_bytes(), str(path))
    except DAMAGES as error:
        raise ValueError(f"{path} cannot be read as a WAV file: {error}") from error
    if len(waveform) < LENGTH:
        raise ValueError(f"{path} has {len(waveform)} samples; wants a second at least, {LENGTH}")
    return waveform


Images = np.ndarray
See = Callable[[np.ndarray], Images]
Classify = Callable[[Images], np.ndarray]


def load(workdir: str, *, best: bool) -> tuple[tuple[str, ...], See, Classify]:
    """Returns class names, int16 (LENGTH,) -> uint8 (1, s, s, 3), and that -> posteriors (c,)."""
    import jax

    from condconv_jax import config as configs
    from condconv_jax.cli.trained import load_predictor

    predictor = load_predictor(workdir, [], best=best)
    if predictor.config["task"] != "classification":
        raise ValueError(f"{workdir} is of a {predictor.config['task']}; pass a classifier's")
    weights = jax.device_put(predictor.state.to_evaluate())

    @jax.jit
    def posteriors(params: Any, model_state: Any, images: Any) -> Any:
        return jax.nn.softmax(predictor.task.predict(params, model_state, images)[0])

    def see(waveform: np.ndarray) -> Images:
        return configs.read_unlabelled(predictor.config, sound_picture(waveform))[np.newaxis]

    def classify(images: Images) -> np.ndarray:
        return np.asarray(posteriors(*weights, images))

    return predictor.class_names, see, classify


def listen(
    waveform: np.ndarray, step: int, see: See, classify: Classify
) -> tuple[np.ndarray, Times]:
    """Returns the posteriors of every window, (n, c), and what each took.

    Args:
      waveform: int16 (samples,), a second at least.
      step: samples from one window to the next.
      see: window -> picture.
      classify: picture -> posteriors (c,), when they are there to read.
    """
    posteriors, features, network = [], [], []
    for start in range(0, len(waveform) - LENGTH + 1, step):
        begun = time.perf_counter()
        images = see(waveform[start : start + LENGTH])
        seen = time.perf_counter()
        posteriors.append(classify(images))
        network.append(time.perf_counter() - seen)
        features.append(seen - begun)
    return np.stack(posteriors), Times(np.array(features), np.array(network))


def average_last(posteriors: np.ndarray, count: int) -> np.ndarray:
    """Returns the mean of each row and up to count - 1 before it, (n, c)."""
    sums = np.cumsum(np.pad(posteriors.astype(np.float64), ((1, 0), (0, 0))), axis=0)
    last = np.arange(1, len(sums))
    first = np.maximum(0, last - count)
    return (sums[last] - sums[first]) / (last - first)[:, np.newaxis]


def detect(
    averaged: np.ndarray,
    ends: np.ndarray,
    class_names: Sequence[str],
    *,
    threshold: float,
    suppressed: float = SUPPRESSED,
) -> list[Heard]:
    """Returns the keywords heard.

    Args:
      averaged: posteriors (n, c).
      ends: of the windows, (n,), in seconds.
      class_names: c; those like `_silence_` are never heard.
      threshold: least averaged posterior.
      suppressed: seconds after one in which none is heard.
    """
    keywords = [k for k, name in enumerate(class_names) if not name.startswith("_")]
    heard: list[Heard] = []
    for at, row in zip(ends.tolist(), averaged, strict=True):
        best = max(keywords, key=lambda k: row[k])
        if row[best] >= threshold and not (heard and at - heard[-1].at < suppressed):
            heard.append(Heard(at, class_names[best], float(row[best])))
    return heard


def count_right(heard: Sequence[Heard], said: Sequence[tuple[str, float, float]]) -> str:
    """Returns how many keywords were heard when they were said, and what else was heard.

    A keyword counts once, from its beginning until `LATE` after its end; all else that is heard
    was not said.
    """
    open_words = [item for item in said if item[0] in WORDS]
    keywords, wrong = len(open_words), 0
    for one in heard:
        fits = [
            item
            for item in open_words
            if item[0] == one.word and item[1] <= one.at <= item[2] + LATE
        ]
        if fits:
            open_words.remove(fits[0])
        else:
            wrong += 1
    others = len(said) - keywords
    return (
        f"{keywords - len(open_words)} of {keywords} keywords heard; {wrong} heard that were not "
        f"said, among {others} other words"
    )


def nearest_rank(values: np.ndarray, percent: float) -> float:
    """Returns the least value that `percent` % of the values (n,) do not exceed."""
    return float(np.sort(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)])


def timing_table(times: Times, step: float) -> str:
    """Returns what a window took, in milliseconds, as text; `step` is in seconds."""
    first, rest = times.features[0] + times.network[0], [part[1:] for part in times]
    lines = [f"first window, which compiles: {first:.2f} s"]
    if not len(rest[0]):
        return lines[0]
    lines.append(f"{len(rest[0])} windows after it, ms    mean     p50     p99")
    for name, part in zip(("features", "network", "both"), (*rest, rest[0] + rest[1]), strict=True):
        numbers = (part.mean(), nearest_rank(part, 50), nearest_rank(part, 99))
        lines.append(f"{name:<26}" + "".join(f"{1e3 * number:8.2f}" for number in numbers))
    factor = (rest[0] + rest[1]).mean() / step
    lines.append(f"real-time factor {factor:.3f}, a window every {1e3 * step:.0f} ms")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
