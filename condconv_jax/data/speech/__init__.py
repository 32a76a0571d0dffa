"""Sound in: WAV files, log-mel spectrograms, spectrograms as pictures, and words that are made."""

from condconv_jax.data.speech.log_mel import HOP, NUM_MELS, SAMPLE_RATE, WINDOW, log_mel
from condconv_jax.data.speech.picture import LENGTH, sound_picture, to_decibels, to_levels
from condconv_jax.data.speech.synthesis import PHONES, make_noise, make_stream, make_word
from condconv_jax.data.speech.wav import read_wav, write_wav

__all__ = [
    "HOP",
    "LENGTH",
    "NUM_MELS",
    "PHONES",
    "SAMPLE_RATE",
    "WINDOW",
    "log_mel",
    "make_noise",
    "make_stream",
    "make_word",
    "read_wav",
    "sound_picture",
    "to_decibels",
    "to_levels",
    "write_wav",
]
