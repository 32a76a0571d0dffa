"""Videos written by the tests: frames of one grey each, which survives any codec."""

import importlib.util
import math
import types

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data import opencv, video

needs_opencv = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="the extra fast-data is not installed"
)
GREYS = [0, 40, 80, 120, 160, 200, 240]
# Grey levels: what lossy codecs make of a frame of one colour.
CODEC_ERROR = 4


def write(path, *, codec="mp4v", greys=GREYS, fps=12.5, size=(48, 64)):
    """Writes a video with OpenCV itself."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size[::-1])
    for grey in greys:
        writer.write(np.full((*size, 3), grey, np.uint8))
    writer.release()
    return path


def shortened(path, share):
    """Keeps the first share of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def read_until_error(path):
    """The frames of a video, and what was raised after them."""
    frames = []
    with data.Video(path) as opened, pytest.raises(data.CorruptSampleError) as raised:
        frames.extend(opened)  # those before the error stay
    return frames, str(raised.value)


@needs_opencv
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.mov", "mp4v")]
)
def test_frames_come_in_order_with_their_times(tmp_path, name, codec):
    with data.Video(write(tmp_path / name, codec=codec)) as opened:
        assert (opened.fps, opened.size) == (12.5, (48, 64))
        frames = list(opened)
    assert [frame.number for frame in frames] == list(range(len(GREYS)))
    np.testing.assert_allclose([f.seconds for f in frames], np.arange(len(GREYS)) / 12.5)
    for frame, grey in zip(frames, GREYS, strict=True):
        assert (frame.image.dtype, frame.image.shape) == (np.uint8, (48, 64, 3))
        assert abs(frame.image.astype(int) - grey).max() <= CODEC_ERROR


@needs_opencv
def test_colours_are_red_green_and_blue_both_ways(tmp_path):
    image = np.full((32, 48, 3), (220, 40, 90), np.uint8)
    with data.VideoWriter(tmp_path / "red.mp4", fps=5.0, size=(32, 48)) as writer:
        for _ in range(3):
            writer.write(image)
    with data.Video(tmp_path / "red.mp4") as opened:
        frames = list(opened)
    assert (len(frames), opened.fps, opened.size) == (3, 5.0, (32, 48))
    for frame in frames:
        assert abs(frame.image.astype(int) - image).max() <= 2 * CODEC_ERROR


@needs_opencv
@pytest.mark.parametrize(
    "fps", [0.5, 23.976, 30000 / 1001, 66.667, 119.917, 120.0, 239.834, 240.003, 65535.0]
)
def test_written_rates(tmp_path, fps):
    with data.VideoWriter(tmp_path / "a.mp4", fps=fps, size=(32, 32)) as writer:
        for _ in range(2):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    with data.Video(tmp_path / "a.mp4") as opened:
        # 0.05 of 239.834 is what the codec's 16 bits leave of it.
        assert math.isclose(opened.fps, fps, rel_tol=2.5e-4)


@needs_opencv
def test_odd_sides_lose_a_row_and_a_column(tmp_path):
    with data.VideoWriter(tmp_path / "odd.mp4", fps=5.0, size=(33, 47)) as writer:
        writer.write(np.zeros((33, 47, 3), np.uint8))
    with data.Video(tmp_path / "odd.mp4") as opened:
        assert [frame.image.shape for frame in opened] == [(32, 46, 3)]


@needs_opencv
def test_what_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .* 64x48 pixels at 5 frames/s; pass"):
        data.VideoWriter(tmp_path / "nowhere" / "a.mp4", fps=5.0, size=(48, 64))
    with data.VideoWriter(tmp_path / "a.mp4", fps=5.0, size=(48, 64)) as writer:
        for image in (np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64, 3))):
            with pytest.raises(ValueError, match=r"pass uint8 \(48, 64, 3\), as the file was begu"):
                writer.write(image)


@needs_opencv
def test_a_full_disk_is_told_when_the_file_ends(mount_disk):
    disk = mount_disk(64)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    writer = data.VideoWriter(disk / "a.mp4", fps=5.0, size=(64, 64))
    for number in range(200):
        writer.write(np.roll(noise, 7 * number, axis=1))
    with pytest.raises(OSError, match=r"of 200 frames .*a.mp4 has 0; make room on the disk"):
        writer.close()
    writer.close()  # told once


@needs_opencv
@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mkv", "mp4v")])
def test_a_truncated_video_gives_the_frames_it_has(tmp_path, name, codec):
    path = write(tmp_path / name, codec=codec, greys=GREYS * 5)
    frames, error = read_until_error(shortened(path, 0.6))
    assert 0 < len(frames) < 35
    assert f"{name} ends after {len(frames)} of 35 frames" in error
    for frame, grey in zip(frames, GREYS * 5, strict=False):
        assert abs(frame.image.astype(int) - grey).max() <= CODEC_ERROR


@needs_opencv
def test_what_is_no_video(tmp_path):
    path = shortened(write(tmp_path / "a.mp4"), 0.6)  # the table of its frames is at its end
    with pytest.raises(data.CorruptSampleError, match=r"cannot read .*a.mp4 \(\d+ bytes\): its"):
        data.Video(path)
    (tmp_path / "text1.mp4").write_text("no video")
    with pytest.raises(data.CorruptSampleError, match=r"cannot read .*text1.mp4 \(8 bytes\)"):
        data.Video(tmp_path / "text1.mp4")
    with pytest.raises(FileNotFoundError, match=r"no video 'nowhere.mp4'; pass a file"):
        data.Video("nowhere.mp4")


class Capture:
    """Stands for cv2.VideoCapture: frames, then nothing; what it tells is by the key's name."""

    def __init__(self, frames, times=(), **told):
        self.frames, self.times, self.told = frames, times, told
        self.read_frames = 0

    def read(self):
        if self.read_frames == self.frames:
            return False, None
        self.read_frames += 1
        return True, np.zeros((8, 8, 3), np.uint8)

    def get(self, key):
        if key == "CAP_PROP_POS_MSEC" and self.times:
            return 1000 * self.times[self.read_frames - 1]
        return self.told.get(key, 0.0)

    def set(self, key, value):
        pass

    def isOpened(self):  # noqa: N802, as OpenCV has it
        return self.frames is not None

    def release(self):
        pass


@pytest.fixture
def opencv_with(monkeypatch):
    """Puts a capture in the place of OpenCV's."""

    def put(capture):
        keys = ("BUFFERSIZE", "FPS", "FRAME_COUNT", "FRAME_HEIGHT", "FRAME_WIDTH", "POS_MSEC")
        module = types.SimpleNamespace(
            VideoCapture=lambda *_: capture,
            CAP_FFMPEG=0,
            COLOR_BGR2RGB=0,
            cvtColor=lambda image, _: image,
            **{f"CAP_PROP_{key}": f"CAP_PROP_{key}" for key in keys},
        )
        monkeypatch.setattr(video, "require_opencv", lambda what: module)

    return put


def test_a_count_that_is_a_guess_is_no_sign_of_damage(tmp_path, opencv_with):
    (tmp_path / "a.webm").touch()
    # Two seconds at 10 frames/s are announced as 20 frames; the rate varies, 5 are there.
    times = [0.0, 0.1, 0.2, 1.0, 1.9]
    told = {"CAP_PROP_FPS": 10.0, "CAP_PROP_FRAME_COUNT": 20.0}
    opencv_with(Capture(5, times, **told))
    assert [frame.seconds for frame in data.Video(tmp_path / "a.webm")] == times
    opencv_with(Capture(3, times, **told))
    frames, error = read_until_error(tmp_path / "a.webm")
    assert len(frames) == 3
    assert "ends after 3 of 20 frames" in error


def test_a_container_that_tells_nothing(tmp_path, opencv_with):
    (tmp_path / "a.mpg").touch()
    opencv_with(Capture(3, CAP_PROP_FPS=math.nan))
    opened = data.Video(tmp_path / "a.mpg")
    assert (opened.fps, opened.size) == (30.0, (480, 640))
    np.testing.assert_allclose([frame.seconds for frame in opened], [0, 1 / 30, 2 / 30])
    opencv_with(Capture(0))
    assert read_until_error(tmp_path / "a.mpg")[0] == []


def test_a_camera_has_no_end(opencv_with):
    opencv_with(Capture(3))
    camera, frames = data.Video(2), []
    with pytest.raises(data.CorruptSampleError, match="camera 2 gives no more frames after 3; see"):
        frames.extend(frame for frame in camera)
    assert (camera.name, camera.is_camera) == ("camera 2", True)
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert frames[0].seconds <= frames[1].seconds <= frames[2].seconds
    opencv_with(Capture(None))
    with pytest.raises(FileNotFoundError, match="camera 2 cannot be opened; pass another number"):
        data.Video(2)


def test_without_opencv_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(opencv, "import_opencv", lambda: None)
    words = r"needs OpenCV, which is not installed; install the extra with pip .*\[fast-data"
    with pytest.raises(ImportError, match="reading video " + words):
        data.Video(tmp_path / "a.mp4")
    with pytest.raises(ImportError, match="writing video " + words):
        data.VideoWriter(tmp_path / "a.mp4", fps=5.0, size=(8, 8))


def test_names_of_videos():
    assert all(map(data.is_video, ("a.mp4", "B.MOV", "c.d.webm")))
    assert not any(map(data.is_video, ("a.jpg", ".hidden.mp4", "mp4")))
