"""Ten words, silence and other words, all of them made by `condconv_jax.data.speech.synthesis`."""

from dataclasses import dataclass, field

import numpy as np

from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.data.speech import PHONES, make_noise, make_word, sound_picture
from condconv_jax.names import unknown_name

# Several are made of the same phones in another order, or differ in one fricative or vowel.
WORDS = ("aum", "exi", "isu", "ixe", "ixu", "mua", "osi", "sio", "soi", "uma")
# As Speech Commands has them: the words, noise alone, and words that are none of the ten.
CLASS_NAMES = (*WORDS, "_silence_", "_unknown_")
SPLITS = {"train": 4800, "validation": 600, "test": 1200}


@dataclass(frozen=True, eq=False, repr=False)
class GeneratedWords(NamedSource[Sample]):
    """Pictures of made words, each made when it is first read and then kept (12 KB).

    Sample k is of class k % 12, so that any prefix of a multiple of 12 is balanced. It depends on
    seed, split and k alone.

    Attributes:
      split: one of `SPLITS`; no two splits have a draw in common.
      seed: 0 or more; another seed is another data set of the same kind.
      name: what error messages call the source.
      class_names: `CLASS_NAMES`.
    """

    split: str
    seed: int
    name: str
    class_names: tuple[str, ...] = CLASS_NAMES
    _made: dict[int, np.ndarray] = field(init=False, default_factory=dict)

    def __len__(self) -> int:
        return SPLITS[self.split]

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        # Two threads may make the same one at once; both make the same.
        if (image := self._made.get(index)) is None:
            image = self._made[index] = sound_picture(self.waveform(index))
        return {"image": image, "label": index % self.num_classes}

    def waveform(self, index: int) -> np.ndarray:
        """Returns the sound of a sample, int16 (16000,)."""
        rng = np.random.default_rng([self.seed, list(SPLITS).index(self.split), index])
        return make_sound(self.class_names[index % self.num_classes], rng)


def make_sound(class_name: str, rng: np.random.Generator) -> np.ndarray:
    """Returns a second of sound of a class, int16 (16000,).

    Args:
      class_name: one of `CLASS_NAMES`.
      rng: draws all that is not given by the class.
    """
    if class_name == "_silence_":
        return make_noise(rng)
    return make_word(unknown_word(rng) if class_name == "_unknown_" else class_name, rng)


def unknown_word(rng: np.random.Generator) -> str:
    """Returns three different phones at random that are none of `WORDS`."""
    while (word := "".join(rng.choice(list(PHONES), 3, replace=False))) in WORDS:
        pass
    return word


def open_generated_words(split: str, *, path: str = "", seed: int = 0) -> GeneratedWords:
    """Returns made words as spectrograms of 64x64: 12 classes, equally many of each.

    What a network reaches on them says that data, training and evaluation work, and nothing about
    speech.

    Args:
      split: "train" (4,800), "validation" (600) or "test" (1,200).
      path: must stay empty; there are no files.
      seed: of the data set.

    Raises:
      ValueError: if the split is another, a path is given, or the seed is negative.
    """
    if path:
        raise ValueError(
            f"open_generated_words: got path {path!r}, but these words are made, not read; leave "
            f'path empty, or open your own with the source "speech_commands" or "folder"'
        )
    if split not in SPLITS:
        raise unknown_name("open_generated_words", "split", split, SPLITS)
    if seed < 0:
        raise ValueError(f"open_generated_words: got seed {seed}; wants 0 or more")
    return GeneratedWords(split, seed, f"generated_words {split}")
