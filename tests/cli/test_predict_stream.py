"""Streams: what is counted, and the percentiles of given durations."""

import json
import os
import signal
import time

import numpy as np
import pytest
from predicting_fakes import Greys, greys, needs_opencv, write_video

from condconv_jax import data
from condconv_jax.cli import main
from condconv_jax.cli.predicting import from_workdir
from condconv_jax.cli.predicting.inputs import View
from condconv_jax.cli.predicting.latency import Latencies, percentiles
from condconv_jax.cli.predicting.predictions import make_select
from condconv_jax.cli.predicting.stream import run_stream
from condconv_jax.data import video


class Clock:
    """Goes on only when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Slow(Greys):
    """Takes 7 s for its first call, then 2 s for each, by a clock."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def __call__(self, images):
        self.clock.now += 2 if self.shapes else 7
        return super().__call__(images)


def run_slow(ends_with=None, frames=4, shown=None):
    """A stream whose n-th frame takes n s to read; to show one takes 10 s."""
    clock = Clock()
    predictor = Slow(clock)

    def views():
        for number, image in enumerate(greys(range(frames))):
            clock.now += number
            yield View(f"{number}", image)
        clock.now += 50
        if ends_with is not None:
            raise ends_with

    def show(view, prediction):
        clock.now += 10
        if shown is not None:
            shown.append((view.file, prediction.text()))

    select = make_select(predictor.kind, predictor.class_names, top=1, threshold=0.5)
    report = run_stream(predictor, views(), select, show, name="it", size=(32, 48), clock=clock)
    return report, predictor


def test_each_part_of_the_time_is_where_it_belongs(capsys):
    shown = []
    report, predictor = run_slow(shown=shown)
    assert [name for name, _ in shown] == ["0", "1", "2", "3"]
    # One at a time, and the first of all was blank.
    assert predictor.shapes == [(1, 4, 4, 3)] * 5
    fields = report.fields()
    assert fields["frames"] == 4
    assert fields["first_call_seconds"] == 7
    assert fields["interrupted"] is False
    # To read 0 + 1 + 2 + 3, the network 4 times 2, to show 4 times 10.
    assert fields["seconds"] == 54
    assert fields["frames_per_second"] == 0.074  # 4 / 54, rounded
    assert fields["latency_ms"] == {
        "read_and_prepare": {"p50": 1500, "p90": None, "p99": None, "max": 3000},
        "network": {"p50": 2000, "p90": None, "p99": None, "max": 2000},
        "total": {"p50": 3500, "p90": None, "p99": None, "max": 5000},
    }
    # A line after each frame here, as to show one takes longer than the 5 s between lines.
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    # Each of the frames since the last line alone.
    assert lines[0] == (
        "1 frames; in the last 12.0 s 0.1 frames/s, ms: "
        "read+prepare max 0.00; network max 2000.00; total max 2000.00"
    )
    assert "3 frames; in the last 14.0 s 0.1 frames/s" in lines[2]
    assert "total max 4000.00" in lines[2]
    text = report.text().splitlines()
    assert text[0] == (
        "it: 4 frames in 54.00 s, 0.1 frames/s; first call, which compiles, 7.00 s before that"
    )
    assert text[1].split() == ["latency", "in", "ms", "p50", "p90", "p99", "max"]
    assert text[4].split() == ["total", "3500.00", "-", "-", "5000.00"]
    assert text[5].startswith("of 4 frames; percentiles by linear interpolation")
    assert text[5].endswith("too few frames for p90 and p99")


def test_ctrl_c_and_a_truncated_video_end_it_with_the_report():
    report, _ = run_slow(KeyboardInterrupt())
    assert (len(report.latencies), report.interrupted, report.error) == (4, True, None)
    assert "4 frames in 54.00 s, 0.1 frames/s, interrupted" in report.text()
    report, _ = run_slow(data.CorruptSampleError("ends after 4 of 9 frames"))
    assert (len(report.latencies), report.interrupted) == (4, False)
    assert report.error == "ends after 4 of 9 frames"
    report, _ = run_slow(KeyboardInterrupt(), frames=0)
    assert (report.seconds, report.rate) == (0, 0)
    assert report.text().startswith("it: 0 frames in 0.00 s")
    assert report.fields()["latency_ms"]["total"] == dict.fromkeys(("p50", "p90", "p99", "max"))


def test_an_error_of_what_shows_is_no_end_of_the_video():
    predictor = Greys()
    select = make_select(predictor.kind, predictor.class_names, top=1, threshold=0.5)

    def show(*_):
        raise OSError("disk full")

    views = [View("a", greys([1])[0])]
    with pytest.raises(OSError, match="disk full"):
        run_stream(predictor, views, select, show, name="it", size=(8, 8))


def test_percentiles_by_hand():
    # Of 0, 10, ..., 1000 the q-th is at q / 100 * 100, counted from 0.
    values = np.random.default_rng(0).permutation(np.arange(0, 1001, 10))
    assert percentiles(values) == {"p50": 500, "p90": 900, "p99": 990, "max": 1000}
    # Of 100 values that of 99 % is at 98.01: a hundredth of the way from 98 to 99.
    found = percentiles(np.arange(100.0))
    assert found == {
        "p50": 49.5, "p90": pytest.approx(89.1), "p99": pytest.approx(98.01), "max": 99
    }  # fmt: skip


def test_percentiles_are_numpys():
    latencies, rng = Latencies(), np.random.default_rng(0)
    reading, network = rng.exponential(0.01, 250), rng.exponential(0.03, 250)
    for pair in zip(reading, network, strict=True):
        latencies.add(*pair)
    assert len(latencies) == 250
    found = latencies.milliseconds()
    parts = {"read_and_prepare": reading, "network": network, "total": reading + network}
    for name, seconds in parts.items():
        expected = [*np.percentile(1000 * seconds, [50, 90, 99]), 1000 * seconds.max()]
        np.testing.assert_allclose(list(found[name].values()), expected)


@pytest.mark.parametrize(
    ("count", "known"), [(0, []), (1, ["max"]), (2, ["p50", "max"]), (9, ["p50", "max"]),
    (10, ["p50", "p90", "max"]), (99, ["p50", "p90", "max"]), (100, ["p50", "p90", "p99", "max"])]
)  # fmt: skip
def test_few_frames_claim_no_percentile_beyond_them(count, known):
    found = percentiles(np.arange(count))
    assert [name for name, value in found.items() if value is not None] == known


@pytest.fixture
def stream(monkeypatch, capsys):
    """Runs the verb with a network of greys, and returns what it printed."""
    monkeypatch.setattr(from_workdir, "load_workdir", lambda *_, best: Greys())

    def run(*arguments):
        assert main(["predict", "--workdir=any", *map(str, arguments)]) == 0
        return capsys.readouterr()

    return run


@needs_opencv
def test_a_stream_predicts_like_a_video_and_reports(tmp_path, stream):
    clip = write_video(tmp_path / "clip.mp4", greys(range(0, 240, 20)), fps=12.5)
    whole = [json.loads(line) for line in stream("--json", clip).out.splitlines()]
    printed = stream("--json", f"--stream={clip}", f"--out={tmp_path / 'drawn'}")
    *frames, report = [json.loads(line) for line in printed.out.splitlines()]
    assert frames == whole
    assert set(report) == {"stream"}
    assert (report["stream"]["frames"], report["stream"]["source"]) == (12, str(clip))
    assert report["stream"]["latency_ms"]["total"]["p99"] is None
    assert report["stream"]["latency_ms"]["total"]["max"] > 0
    assert "numpy.percentile" in report["stream"]["percentiles"]
    with data.Video(tmp_path / "drawn" / "clip.mp4") as drawn:
        assert (drawn.fps, len(list(drawn))) == (12.5, 12)
    text = stream(f"--stream={clip}", "--frames=5").out.splitlines()
    assert text[0].startswith(f"{clip} frame 0 (0.000 s): dark 1.000, light 0.000")
    assert text[4].startswith(f"{clip} frame 4 ")
    assert text[5].startswith(f"{clip}: 5 frames in ")


@needs_opencv
def test_a_truncated_stream_is_named(tmp_path, stream):
    clip = write_video(tmp_path / "clip.avi", greys(range(0, 240, 10)), codec="MJPG")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 4 // 5])
    printed = stream("--json", f"--stream={clip}")
    *frames, failure, report = [json.loads(line) for line in printed.out.splitlines()]
    assert set(failure) == {"file", "error"}
    assert 0 < len(frames) < 24
    assert report["stream"]["frames"] == len(frames)
    assert f"ends after {len(frames)} of 24 frames" in failure["error"]
    assert failure["error"] in printed.err


class Camera:
    """Stands for `Video`: three frames, and then somebody presses Ctrl-C."""

    def __init__(self, source):
        self.name, self.fps, self.size = f"camera {source!r}", 30.0, (32, 48)
        self.is_camera, self.closed = isinstance(source, int), False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def __iter__(self):
        for number, image in enumerate(greys([10, 20, 30])):
            yield data.Frame(image, number, number / 30)
        raise KeyboardInterrupt


class Empty(Camera):
    """Stands for `Video`: a file that opens, and has no frame."""

    def __iter__(self):
        raise data.CorruptSampleError("ends after 0 of 9 frames")
        yield


@needs_opencv
def test_a_stream_without_a_frame_is_an_error(monkeypatch, tmp_path, refused):
    monkeypatch.setattr(from_workdir, "load_workdir", lambda *_, best: Greys())
    monkeypatch.setattr(video, "Video", Empty)
    (tmp_path / "a.avi").touch()
    line = refused("predict", "--workdir=any", f"--stream={tmp_path / 'a.avi'}")
    assert f"no frame of {tmp_path / 'a.avi'} could be read" in line


@needs_opencv
def test_ctrl_c_ends_a_camera_with_its_report_and_a_video_that_plays(monkeypatch, tmp_path, stream):
    monkeypatch.setattr(video, "Video", Camera)
    printed = stream("--json", "--stream=0", f"--out={tmp_path / 'drawn'}")
    *frames, report = [json.loads(line) for line in printed.out.splitlines()]
    # The number, not a file of that name.
    assert [item["file"] for item in frames] == ["camera 0"] * 3
    assert (report["stream"]["frames"], report["stream"]["interrupted"]) == (3, True)
    monkeypatch.undo()
    with data.Video(tmp_path / "drawn" / "camera 0.mp4") as drawn:
        assert len(list(drawn)) == 3


@needs_opencv
def test_sigterm_ends_a_camera_likewise(monkeypatch, stream):
    class Served(Camera):
        def __iter__(self):
            yield data.Frame(greys([10])[0], 0, 0.0)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    monkeypatch.setattr(video, "Video", Served)
    before = signal.getsignal(signal.SIGTERM)
    report = json.loads(stream("--json", "--stream=0").out.splitlines()[-1])
    assert (report["stream"]["frames"], report["stream"]["interrupted"]) == (1, True)
    assert signal.getsignal(signal.SIGTERM) is before


@needs_opencv
def test_a_camera_that_stops_is_an_error_after_its_report(monkeypatch, capsys):
    class Unplugged(Camera):
        def __iter__(self):
            yield data.Frame(greys([10])[0], 0, 0.0)
            raise data.CorruptSampleError("camera 0 gives no more frames after 1")

    monkeypatch.setattr(from_workdir, "load_workdir", lambda *_, best: Greys())
    monkeypatch.setattr(video, "Video", Unplugged)
    assert main(["predict", "--workdir=any", "--stream=0", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["stream"]["frames"] == 1
    assert printed.err.splitlines()[-1].endswith("camera 0 gives no more frames after 1")
