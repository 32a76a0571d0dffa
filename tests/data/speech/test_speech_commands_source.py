"""Speech Commands as TFDS lays it out, in both formats, without TensorFlow."""

import json
import sys

import pytest
import tfds_builders
from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from condconv_jax import data
from condconv_jax.data.speech import sound_picture

AUDIO = "tensorflow_datasets.core.features.audio_feature.Audio"


def declare_audio(folder, **changes):
    """Calls the plain integers of features.json what TFDS' own builder calls them: Audio.

    It can be made only where TensorFlow is, so that a test cannot prepare with it.
    """
    file = folder / "features.json"
    content = json.loads(file.read_text())
    audio = {"dtype": "int16", "file_format": "wav", "sample_rate": 16_000, "encoding": "NONE"}
    shape = feature_pb2.Shape(dimensions=changes.pop("dimensions", [-1]))
    feature = feature_pb2.Feature(
        python_class_name=AUDIO,
        audio=feature_pb2.AudioFeature(shape=shape, **{**audio, **changes}),
    )
    content["featuresDict"]["features"]["audio"] = json_format.MessageToDict(feature)
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data_dirs of both formats."""
    root = tmp_path_factory.mktemp("tfds")
    builder = tfds_builders.SpeechCommands(
        data_dir=root / "array_record", file_format="array_record"
    )
    builder.download_and_prepare()
    place = "speech_commands/0.0.3"
    lengths = {"train": (4, 0, 2), "test": (3,)}
    tfds_builders.write_tfrecord(root / "array_record" / place, root / "tfrecord" / place, lengths)
    for file_format in ("array_record", "tfrecord"):
        declare_audio(root / file_format / place)
    return root


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_prepared_words_become_pictures(prepared, file_format):
    source = data.open_source("speech_commands", "train", path=str(prepared / file_format))
    assert source.class_names == ("no", "yes", "_silence_", "_unknown_")
    assert source.name == "speech_commands/0.0.3 train"
    expected = {
        sound_picture(tfds_builders.sound(number)).tobytes(): number % 4 for number in range(6)
    }
    assert {sample["image"].tobytes(): sample["label"] for sample in source} == expected
    assert len(source) == 6
    assert "tensorflow" not in sys.modules


def test_the_folder_of_a_version_and_parts_of_a_split_are_read(prepared):
    path = str(prepared / "array_record" / "speech_commands" / "0.0.3")
    assert len(data.open_source("speech_commands", "train[:50%]", path=path)) == 3
    with pytest.raises(ValueError, match=r"unknown split of speech_commands/0\.0\.3 'valid'"):
        data.open_source("speech_commands", "valid", path=path)


def test_labels_without_a_class_and_empty_sounds_are_refused(prepared):
    source = data.open_source("speech_commands", "test", path=str(prepared / "tfrecord"))
    messages = set()
    for index in range(3):
        try:
            source[index]
        except ValueError as error:
            messages.add(str(error).partition(" has ")[2].partition(";")[0])
    assert messages == {"the label -1", "0 samples of int16"}


def test_what_is_not_prepared_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no speech_commands in .*; prepare it once"):
        data.open_source("speech_commands", "train", path=str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_rate": 8000},
        {"dimensions": [-1, 2]},
        {"dtype": "float32"},
        {"lazy_decode": True},
        {"encoding": "zlib"},
    ],
)
def test_audio_of_another_form_is_refused(prepared, tmp_path, changes):
    folder = tmp_path / "0.0.3"
    folder.mkdir()
    for file in (prepared / "array_record" / "speech_commands" / "0.0.3").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    declare_audio(folder, **changes)
    with pytest.raises(ValueError, match=r"features \['audio', 'label'\].*wants audio of 16000 Hz"):
        data.open_source("speech_commands", "train", path=str(folder))
