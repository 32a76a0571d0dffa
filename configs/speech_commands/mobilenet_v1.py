r"""MobileNetV1 on log-mel spectrograms: keyword spotting, static or CondConv.

  condconv train --config=configs/speech_commands/mobilenet_v1.py:0.25,8 \
      --config.data.path=DATA_DIR --workdir=runs/words_8
  condconv train --config=configs/speech_commands/mobilenet_v1.py:0.25,8,generated \
      --workdir=runs/generated_8

WIDTH,EXPERTS: any width, experts 1 (static) or more. DATA_DIR holds speech_commands as prepared by
TFDS, ArrayRecord or TFRecord (Warden 2018, arXiv 1804.03209). WIDTH,EXPERTS,generated: words that
are made instead, which is no speech. One's own words, in folders of WAV files: the first form, with
`--config.data.name=folder --config.data.path=FOLDER --config.data.eval=val`.

On Speech Commands not run by us: it was not at hand. Its channel statistics are to be measured (the
config takes -1..1 instead), its number of epochs is a guess. For generated words docs/speech.md has
the accuracies measured, with hardware and time.
"""

from condconv_jax.config import classification

WANTED = "pass WIDTH,EXPERTS or WIDTH,EXPERTS,generated, such as 0.25,8"


def get_config(arg: str = "0.25,8"):
    width, _, rest = arg.partition(",")
    experts, _, generated = rest.partition(",")
    try:
        width, experts = float(width), int(experts or 1)
        if generated not in ("", "generated"):
            raise ValueError(generated)
    except ValueError as error:
        raise ValueError(f"configs/speech_commands/mobilenet_v1.py: {arg!r}; {WANTED}") from error
    config = classification()
    config.model.width = width
    config.model.num_experts = experts if experts > 1 else 0
    config.model.early_strides = (2, 1, 2)  # 64 -> 32, 32, 16, 8, 4 pixels
    config.data.image_size = 64  # bands and frames: nothing is resized
    config.data.padding = 0
    config.data.flip = False  # neither time nor frequency runs backwards
    config.data.augment = "spectrogram"
    config.data.eval = "validation"
    config.batch_size = 64
    config.schedule.learning_rate = 0.2
    if generated:
        config.data.name = "generated_words"
        config.data.statistics = "generated_words"
        config.epochs = 12.0
    else:
        config.data.name = "speech_commands"
        config.data.path = "data/tensorflow_datasets"
        config.data.statistics = "inception"
        config.epochs = 30.0
    return config.lock()
