"""`condconv predict`."""

import argparse
import contextlib
import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from condconv_jax.cli.predicting.inputs import Failure, View
    from condconv_jax.cli.predicting.predictions import Prediction, Select
    from condconv_jax.cli.predicting.predictor import PicturePredictor
    from condconv_jax.cli.predicting.writers import Writer

HELP = """What a trained network sees in pictures and videos: the classes of each picture or frame,
or, of a detector, the objects; as text, as JSON, drawn on copies, or with the time each frame took.
"""
EXAMPLE = """condconv predict --workdir=runs/bccd_condconv --out=runs/drawn pictures/ more.jpg
  condconv predict --workdir=runs/experts16 --top=3 --json 'shirts/**/*.png' clip.mp4
  condconv predict --model=model.onnx --stream=0 --frames=500"""

THRESHOLD, TOP = 0.5, 5
# Each option that only one kind of network has a use for, and what the other kind is called.
NOT_FOR = {"classification": ("threshold", "classifier"), "detection": ("top", "detector")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "pictures",
        nargs="*",
        metavar="PICTURE",
        help="pictures, videos, folders of them, or patterns in quotes ('dir/**/*.jpg')",
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--workdir", metavar="DIR", help="work directory, or a checkpoint in it")
    network.add_argument(
        "--model", metavar="FILE", help="of `condconv export`: .stablehlo, .onnx or .tflite"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of --model, for .onnx and .tflite"
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    parser.add_argument(
        "--json", action="store_true", help="a JSON object for each picture or frame, a line each"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where pictures (PNG) and videos (MP4) go, drawn on"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help=f"of a detector: lower scores are left out (default {THRESHOLD})",
    )
    parser.add_argument(
        "--top", type=int, metavar="K", help=f"of a classifier: classes (default {TOP})"
    )
    parser.add_argument(
        "--stream",
        metavar="VIDEO",
        help="a video, or the number of a camera: frame by frame, and at the end how long it took",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="of --stream: stop after N frames")


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Predicts picture by picture, or frame by frame, and prints a line for each."""
    _check(arguments)
    from condconv_jax import runtime
    from condconv_jax.cli.predicting.inputs import find_inputs
    from condconv_jax.cli.predicting.predictions import make_select
    from condconv_jax.data.opencv import require_opencv
    from condconv_jax.data.video import is_video

    camera = arguments.stream is not None and arguments.stream.isdecimal()
    names = [] if camera else [arguments.stream] if arguments.stream else arguments.pictures
    files = find_inputs(names, arguments.out)
    if arguments.stream or any(is_video(file.name) for file in files):
        require_opencv("predict: reading video")
    runtime.enable_compile_cache()
    predictor = _load(arguments, overrides)
    option, noun = NOT_FOR[predictor.kind]
    if getattr(arguments, option) is not None:
        raise ValueError(f"--{option}: a {noun} has no use for it; leave it out")
    select = make_select(
        predictor.kind,
        predictor.class_names,
        top=arguments.top or TOP,
        threshold=THRESHOLD if arguments.threshold is None else arguments.threshold,
    )
    with _ended_by_sigterm(), _writing(arguments) as writers:
        if arguments.stream:
            _stream(predictor, select, writers, arguments)
        else:
            _predict(predictor, select, writers, files)
    if arguments.out:
        print(f"drawn: {arguments.out}", file=sys.stderr if arguments.json else sys.stdout)


def _load(arguments: argparse.Namespace, overrides: Sequence[str]) -> "PicturePredictor":
    from condconv_jax.cli.predicting.from_exported import load_exported
    from condconv_jax.cli.predicting.from_workdir import load_workdir

    if arguments.workdir:
        return load_workdir(arguments.workdir, overrides, best=arguments.best)
    if overrides:
        raise ValueError(f"{overrides[0]}: a --model has no config; pass it to export")
    return load_exported(arguments.model, threads=arguments.threads)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.model and arguments.best:
        raise ValueError("--best is of --workdir; a --model has the weights it was exported with")
    if arguments.threads is not None and (arguments.workdir or arguments.threads < 1):
        raise ValueError("--threads is of --model, and at least 1; leave it out")
    if arguments.top is not None and arguments.top < 1:
        raise ValueError(f"--top is {arguments.top}; pass at least 1")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ValueError(f"--threshold is {arguments.threshold}; pass a score, 0 to 1")
    if arguments.frames is not None and arguments.frames < 1:
        raise ValueError(f"--frames is {arguments.frames}; pass at least 1")
    if arguments.frames is not None and not arguments.stream:
        raise ValueError("--frames is of --stream; pass --stream=VIDEO, or leave it out")
    if arguments.stream and arguments.pictures:
        raise ValueError(
            f"--stream={arguments.stream} and {arguments.pictures[0]!r}; pass either a stream or "
            "pictures"
        )
    if not arguments.stream and not arguments.pictures:
        raise ValueError("nothing to look at; pass pictures, videos or folders, or --stream=VIDEO")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Has SIGTERM, by which services are stopped, end the command as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _writing(arguments: argparse.Namespace) -> Iterator[list["Writer"]]:
    """The writers that were asked for, closed at the end."""
    from condconv_jax.cli.predicting.writers import DrawnWriter, JsonWriter, TextWriter

    writers: list[Writer] = [JsonWriter() if arguments.json else TextWriter()]
    if arguments.out:
        writers.append(DrawnWriter(arguments.out))
    try:
        yield writers
    finally:
        # A video that is cut short by Ctrl-C can still be played.
        for writer in writers:
            writer.close()


def _predict(
    predictor: "PicturePredictor",
    select: "Select",
    writers: Sequence["Writer"],
    files: Sequence[Path],
) -> None:
    """Predicts the pictures and frames of files; those that fail are named, and counted."""
    from condconv_jax.cli.predicting.batches import predict_all
    from condconv_jax.cli.predicting.inputs import Failure, read_inputs
    from condconv_jax.data.video import is_video

    predicted = failed = 0
    for item in predict_all(predictor, read_inputs(files), select):
        if isinstance(item, Failure):
            failed += 1
            _fail(writers, item)
        else:
            predicted += 1
            _write(writers, *item)
    videos = any(is_video(file.name) for file in files)
    noun, how = ("files", " in full") if videos else ("pictures", "")
    if not predicted:
        raise ValueError(f"none of the {failed} {noun} could be read")
    if failed:
        print(f"{failed} of {len(files)} {noun} could not be read{how}", file=sys.stderr)


def _stream(
    predictor: "PicturePredictor",
    select: "Select",
    writers: Sequence["Writer"],
    arguments: argparse.Namespace,
) -> None:
    """Predicts a stream frame by frame, and prints its report."""
    from condconv_jax.cli.predicting.inputs import Failure, read_frames
    from condconv_jax.cli.predicting.stream import run_stream
    from condconv_jax.cli.predicting.writers import print_json
    from condconv_jax.data.decoding import CorruptSampleError
    from condconv_jax.data.video import Video

    source = int(arguments.stream) if arguments.stream.isdecimal() else arguments.stream
    try:
        video = Video(source)
    except CorruptSampleError as error:
        _fail(writers, Failure(str(source), str(error)))
        raise ValueError(f"no frame of {source} could be read") from error
    with video:
        report = run_stream(
            predictor,
            itertools.islice(read_frames(video), arguments.frames),
            select,
            lambda view, prediction: _write(writers, view, prediction),
            name=video.name,
            size=video.size,
        )
    if report.error:
        _fail(writers, Failure(video.name, report.error))
        if not len(report.latencies):
            raise ValueError(f"no frame of {source} could be read")
    if arguments.json:
        print_json({"stream": report.fields()})
    else:
        print(report.text())
    if report.error and video.is_camera:
        raise ValueError(report.error)


def _write(writers: Sequence["Writer"], view: "View", prediction: "Prediction") -> None:
    for writer in writers:
        writer.write(view, prediction)


def _fail(writers: Sequence["Writer"], failure: "Failure") -> None:
    print(f"{failure.file}: {failure.error}", file=sys.stderr, flush=True)
    for writer in writers:
        writer.fail(failure)
