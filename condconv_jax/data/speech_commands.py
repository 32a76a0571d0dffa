"""Speech Commands as TFDS prepares it, as ArrayRecord or TFRecord, read without TensorFlow.

Warden 2018, arXiv 1804.03209: words of a second at 16 kHz; TFDS keeps ten words, `_silence_` and
`_unknown_`. Nothing is downloaded or prepared here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from condconv_jax.data.arrays import text_names
from condconv_jax.data.source import NamedSource, Sample, checked_index
from condconv_jax.data.speech import SAMPLE_RATE, sound_picture
from condconv_jax.data.tfds_records import Records, open_records

_DATASET = "speech_commands"
_AUDIO, _TENSOR = (
    f"tensorflow_datasets.core.features.{name}"
    for name in ("audio_feature.Audio", "tensor_feature.Tensor")
)


@dataclass(frozen=True, eq=False, repr=False)
class SpeechCommandsSource(NamedSource[Sample]):
    """One split, each sample as the picture of its spectrogram.

    Attributes:
      records: dicts of "audio", integers of 16 bits (n,), and "label".
      class_names: one per class.
      name: what error messages call the source.

    Raises:
      CorruptSampleError: on reading, if a record is damaged.
      ValueError: on reading, if a waveform is empty or not of 16 bits, a label has no class, or a
        file is damaged as a whole.
      OSError: on reading, if a file is not there or cannot be opened.
    """

    records: Records
    class_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        index = checked_index(self, index)
        record = self.records[index]
        waveform, label = np.asarray(record["audio"]), int(record["label"])
        if not waveform.size or abs(waveform.astype(np.int64) + 0.5).max() > 2**15:
            raise ValueError(
                f"SpeechCommandsSource: sample {index} of {self.name} has {waveform.size} samples "
                f"of {waveform.dtype}; wants at least one, all in -32768..32767"
            )
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f"SpeechCommandsSource: sample {index} of {self.name} has the label {label}; wants "
                f"0..{self.num_classes - 1}"
            )
        return {"image": sound_picture(waveform.astype(np.int16)), "label": label}


def open_speech_commands(split: str, *, path: str = "") -> SpeechCommandsSource:
    """Returns one split of Speech Commands, or of any data set of its features, 64x64 pictures.

    Args:
      split: "train", "validation" or "test", whole.
      path: TFDS' data_dir, by default TFDS' own, whose newest version is read; or the folder of
        one version, such as <data_dir>/speech_commands/0.0.3.

    Raises:
      FileNotFoundError: if it is not prepared there; the message says how to prepare it.
      ValueError: if it was prepared in neither format, the split is not there, "audio" is not of
        16 kHz and one channel, or "label" is no ClassLabel.
    """
    folder = _find_version(path)
    builder = _builder(folder)
    return SpeechCommandsSource(
        records=open_records("open_speech_commands", builder, split, {}),
        class_names=text_names(builder.info.features["label"].names),
        name=f"{builder.info.full_name} {split}",
    )


def _find_version(path: str) -> Path:
    """The folder of one version, which has a dataset_info.json."""
    import tensorflow_datasets as tfds

    place = Path(path).expanduser() if path else Path(tfds.core.constants.DATA_DIR)
    if (place / "dataset_info.json").exists():
        return place
    versions = [file.parent for file in (place / _DATASET).glob("*/dataset_info.json")]
    if not versions:
        raise FileNotFoundError(
            f"open_speech_commands: no {_DATASET} in {place}; prepare it once where TensorFlow and "
            f"pydub are installed, with tfds.builder({_DATASET!r}, data_dir={str(place)!r}, "
            f"file_format='array_record').download_and_prepare(), or pass as path the data_dir, or "
            f"the folder of one version, that holds it"
        )
    return max(versions, key=lambda folder: tfds.core.Version(folder.name))


def _builder(folder: Path) -> Any:
    """TFDS' read-only builder of a folder, with audio as the plain integers that it is kept as.

    TFDS' Audio feature cannot even be made without TensorFlow, which has to read the records
    with it; on disk they are those of a Tensor of the same shape and type.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder

    content = json.loads((folder / "features.json").read_text())
    parts = content.get("featuresDict", {}).get("features", {})
    audio = parts.get("audio", {}).get("audio", {})
    rate = int(audio.get("sampleRate", 0))
    channels = len(audio.get("shape", {}).get("dimensions", ()))
    fits = (
        parts.get("audio", {}).get("pythonClassName") == _AUDIO
        and (rate, channels) == (SAMPLE_RATE, 1)
        and audio.get("dtype") in ("int16", "int64")
        and audio.get("encoding", "").lower() in ("", "none")
        and not audio.get("lazyDecode", False)
        and parts.get("label", {}).get("pythonClassName", "").endswith(".ClassLabel")
    )
    if not fits:
        raise ValueError(
            f"open_speech_commands: {folder} has the features {sorted(parts)}, audio {audio}; "
            f"wants audio of {SAMPLE_RATE} Hz, one channel, int16 or int64, neither compressed "
            f"nor left to be decoded, and a ClassLabel, label"
        )
    plain = {key: audio[key] for key in ("shape", "dtype")}
    parts["audio"] = {"pythonClassName": _TENSOR, "tensor": plain}
    features = tfds.features.FeatureConnector.from_json(content)

    # Not checked by mypy, to which the base is Any.
    class _Builder(ReadOnlyBuilder, skip_registration=True):  # type: ignore[call-arg]
        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=features)

    return _Builder(str(folder))
