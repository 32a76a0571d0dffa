import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from condconv_jax.data import detection
from condconv_jax.data.detection import Expand, RandomFlips, RandomOverlapCrop, ResizeFrame, paint

FILL = (9, 9, 9)


def scene_of(height, width, boxes, crowd=None, frame=None):
    """Noise in which box number n (in pixels) is painted in channel n."""
    image = np.random.default_rng(0).integers(0, 100, (height, width, 3), dtype=np.uint8)
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    for channel, (top, left, bottom, right) in enumerate(boxes.astype(int)[:3]):
        image[top:bottom, left:right, channel] = 255
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd)
    labels = np.arange(len(boxes), dtype=np.int32)
    return detection.Scene(image, frame or (0, 0, height, width), boxes, labels, crowd)


@st.composite
def scenes(draw):
    height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = np.sort(rng.uniform(0, 1, (draw(st.integers(0, 6)), 2, 2)), axis=1)
    boxes = corners.reshape(-1, 4) * [height, width, height, width]
    top, left = draw(st.integers(-20, 0)), draw(st.integers(-20, 0))
    below, beside = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    return scene_of(height, width, boxes, frame=(top, left, height + below, width + beside))


def assert_same(one, other):
    assert one.frame == other.frame
    for key in ("image", "labels", "crowd"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    # Rounding of coordinates of up to 40 to float64.
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-13)


@pytest.mark.parametrize("flip", [detection.flip_horizontally, detection.flip_vertically])
@given(scene=scenes())
def test_flipping_twice_changes_nothing(flip, scene):
    assert_same(flip(flip(scene)), scene)


@given(scene=scenes())
def test_flipping_is_that_of_what_is_painted(scene):
    expected = paint(scene, FILL)
    np.testing.assert_array_equal(
        paint(detection.flip_horizontally(scene), FILL), expected[:, ::-1]
    )
    np.testing.assert_array_equal(paint(detection.flip_vertically(scene), FILL), expected[::-1])
    shares = scene.shares()
    flipped = detection.flip_horizontally(scene).shares()
    # float32 has 24 bits.
    np.testing.assert_allclose(flipped[:, [0, 2]], shares[:, [0, 2]], atol=1e-7)
    np.testing.assert_allclose(flipped[:, [1, 3]], 1 - shares[:, [3, 1]], atol=1e-7)


def test_each_way_of_flipping_is_as_frequent():
    scene = scene_of(4, 6, [[0, 0, 1, 1]])
    flips = {True: RandomFlips(vertical=True), False: RandomFlips()}
    for vertical, step in flips.items():
        # Which corner the box of the upper left one is in afterwards.
        corners = Counter()
        for seed in range(400):
            top, left = step(scene, np.random.default_rng(seed)).boxes[0, :2]
            corners[top > 0, left > 0] += 1
        # Five standard deviations: 8.7 of one case in four, 10 of one in two.
        expected, most = (100, 43) if vertical else (200, 50)
        assert len(corners) == 400 // expected
        assert all(abs(count - expected) < most for count in corners.values())
        assert vertical or set(corners) == {(False, False), (False, True)}


STEPS = {
    "expand": (Expand(probability=1.0),),
    "crop": (RandomOverlapCrop(),),
    "flips": (RandomFlips(vertical=True),),
    "all": (Expand(), RandomOverlapCrop(), RandomFlips(vertical=True)),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("late_flips", [False, True])
@pytest.mark.parametrize("steps", STEPS)
def test_boxes_follow_the_pixels(steps, late_flips, interpolation):
    scene = scene_of(90, 120, [[10, 15, 50, 60], [30, 50, 80, 115]])
    compared = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        moved = scene
        size = 96
        for step in (*STEPS[steps], ResizeFrame(size, interpolation)):
            moved = step(moved, rng)
        if late_flips:
            moved = RandomFlips(vertical=True)(moved, rng)
        image = paint(moved, FILL)
        assert image.shape == (size, size, 3)
        assert image.flags.c_contiguous
        for label, share in zip(moved.labels, moved.shares(), strict=True):
            rows, columns = np.nonzero(image[..., label] > 150)
            found = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            # An edge may fall inside a pixel, and interpolation blurs it over its neighbours.
            np.testing.assert_allclose(found, share * size, atol=1.5)
            compared += 1
    assert compared > 150


@given(scene=scenes(), seed=st.integers(0, 2**32))
def test_no_step_leaves_boxes_outside_or_empty(scene, seed):
    rng = np.random.default_rng(seed)
    for step in (*STEPS["all"], ResizeFrame(20), RandomFlips()):
        scene = step(scene, rng)
        limits = np.maximum(scene.frame[:2], 0), np.minimum(scene.frame[2:], scene.image.shape[:2])
        # Rounding of scaled coordinates.
        assert (scene.boxes[:, :2] >= limits[0] - 1e-9).all()
        assert (scene.boxes[:, 2:] <= limits[1] + 1e-9).all()
        assert (detection.box_areas(scene.boxes) > 0).all()
        assert len(scene.boxes) == len(scene.labels) == len(scene.crowd)
    shares = scene.shares()
    assert shares.dtype == np.float32
    assert ((shares >= 0) & (shares <= 1)).all()


def test_expanding_moves_the_frame_alone():
    scene = scene_of(30, 40, [[3, 4, 20, 30]])
    assert Expand(probability=0.0)(scene, np.random.default_rng(0)) is scene
    sizes = []
    for seed in range(200):
        found = Expand(3.0, 1.0)(scene, np.random.default_rng(seed))
        assert found.image is scene.image
        assert found.boxes is scene.boxes
        top, left, bottom, right = found.frame
        assert top <= 0 <= 30 <= bottom
        assert left <= 0 <= 40 <= right
        sizes.append((bottom - top) / 30)
        assert abs((right - left) / 40 - sizes[-1]) < 0.03  # both are whole pixels
        canvas = paint(found, FILL)
        np.testing.assert_array_equal(canvas[-top : 30 - top, -left : 40 - left], scene.image)
        assert (canvas == FILL).all(axis=2).sum() >= canvas.shape[0] * canvas.shape[1] - 1200
    assert 1 <= min(sizes) < 1.2
    assert 2.8 < max(sizes) <= 3


def kind_of(crop, seed):
    """Which of its kinds a crop takes, for it draws that first: None is the whole frame."""
    kinds = (None, *crop.overlaps, 0.0)
    return kinds[np.random.default_rng(seed).integers(len(kinds))]


@pytest.mark.parametrize("least", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_crop_overlaps_an_object_that_stays(least):
    crop = RandomOverlapCrop(overlaps=(least,), attempts=200)
    boxes = [[10, 15, 50, 60], [0, 0, 90, 120], [60, 100, 70, 110], [30, 50, 80, 115]]
    scene = scene_of(90, 120, boxes, frame=(-10, -20, 100, 130))
    cut = {None: 0, least: 0, 0.0: 0}
    for seed in range(150):
        found, kind = crop(scene, np.random.default_rng(seed)), kind_of(crop, seed)
        if found is scene:
            continue
        cut[kind] += 1
        top, left, bottom, right = found.frame
        assert -10 <= top < bottom <= 100
        assert -20 <= left < right <= 130
        window = np.array([found.frame], float)
        centres = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
        inside = ((centres > window[0, :2]) & (centres < window[0, 2:])).all(axis=1)
        np.testing.assert_array_equal(found.labels, np.flatnonzero(inside))
        assert inside.any()
        assert detection.box_overlap(window, scene.boxes[inside]).max() >= kind
        np.testing.assert_array_equal(
            found.boxes, detection.clip_boxes(scene.boxes[inside], window[0])
        )
        # Sides as shares of the frame's, give or take half a pixel of rounding each.
        height, width = (bottom - top) / 110, (right - left) / 150
        assert 0.3 - 0.01 <= np.sqrt(height * width) <= 1
        assert 0.5 * 0.95 <= width / height <= 2 * 1.05
    assert cut[None] == 0
    assert cut[least] > 5
    assert cut[0.0] > 10


def test_every_kind_of_crop_is_as_frequent(monkeypatch):
    # Strips around the centre of an object that fills the frame overlap it by their width. The
    # first that is fit tells what was wanted: 4% anything, 20% an overlap of 0.1, and so on.
    strips = [(0, 50 - width // 2, 100, 50 + width // 2) for width in (4, 20, 40, 60, 80, 96)]
    monkeypatch.setattr(RandomOverlapCrop, "_windows", lambda *_: np.array(strips, float))
    scene = scene_of(100, 100, [[0, 0, 100, 100]])
    crop, rng = RandomOverlapCrop(), np.random.default_rng(0)
    frames = [crop(scene, rng).frame for _ in range(3500)]
    expected = [scene.frame, *strips]
    assert set(frames) == set(expected)
    # 500 each; the standard deviation is 21.
    assert max(abs(frames.count(frame) - 500) for frame in expected) < 84


def test_where_no_crop_fits_the_picture_stays():
    # The smallest part has 9% of the area, this box 1%: an overlap of 0.9 cannot be had.
    scene = scene_of(100, 100, [[40, 40, 50, 50]])
    crop = RandomOverlapCrop(overlaps=(0.9,))
    for seed in range(60):
        if kind_of(crop, seed) == 0.9:
            assert crop(scene, np.random.default_rng(seed)) is scene


def test_crowds_are_cropped_but_are_no_reason_to_crop():
    boxes = [[0, 0, 100, 100], [40, 40, 50, 50]]
    crop = RandomOverlapCrop(overlaps=(0.5,))
    with_object = scene_of(100, 100, boxes, crowd=[True, False])
    alone = scene_of(100, 100, boxes[:1], crowd=[True])
    cropped = {0.5: 0, 0.0: 0}
    for seed in range(100):
        kind = kind_of(crop, seed)
        found = crop(with_object, np.random.default_rng(seed))
        if kind == 0.5:
            assert found is with_object  # only the crowd overlaps so much
        elif found is not with_object:
            assert 1 in found.labels
        found = crop(alone, np.random.default_rng(seed))
        if found is not alone:
            cropped[kind] += 1
            assert found.crowd.tolist() == [True]
            np.testing.assert_array_equal(found.boxes, [found.frame])
    assert min(cropped.values()) > 5


def test_what_is_left_of_a_crowd_stays_a_crowd():
    # The crowd is the left half, the object in the right one: crops of that keep a strip of it.
    scene = scene_of(100, 100, [[0, 0, 100, 50], [40, 70, 60, 90]], crowd=[True, False])
    strips = 0
    for seed in range(300):
        found = RandomOverlapCrop()(scene, np.random.default_rng(seed))
        top, left, bottom, right = found.frame
        if left < 50:
            assert found.crowd[0]
            np.testing.assert_array_equal(found.boxes[0], [top, left, bottom, min(right, 50)])
            strips += left >= 25  # its centre is outside
        else:
            assert not found.crowd.any()
    assert strips > 5


def test_a_picture_without_boxes_never_leaves_the_frame():
    scene = scene_of(40, 50, [])
    cropped = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found = RandomOverlapCrop()(Expand(probability=1.0)(scene, rng), rng)
        image = paint(ResizeFrame(32)(found, rng), (255, 255, 255))
        assert (image < 100).all(axis=2).any()
        cropped += found.frame_size < scene.frame_size
    assert cropped > 20


def test_resizing_to_the_same_size_changes_nothing():
    scene = scene_of(32, 32, [[3, 4, 20, 30]])
    assert_same(ResizeFrame(32)(scene, np.random.default_rng(0)), scene)


@given(scene=scenes(), size=st.integers(4, 50))
def test_resizing_keeps_shares_up_to_whole_pixels(scene, size):
    found = ResizeFrame(size)(scene, np.random.default_rng(0))
    assert found.frame_size == (size, size)
    # The picture's edges are laid on whole pixels of the result; at least one stays.
    np.testing.assert_allclose(found.shares(), scene.shares(), atol=1.01 / size)


def test_the_same_generator_gives_the_same():
    scene = scene_of(90, 120, [[10, 15, 50, 60], [30, 50, 80, 115]])
    for step in (*STEPS["all"], detection.PhotometricDistortion()):
        assert dataclasses.is_dataclass(step)
        for seed in range(20):
            first, second = (step(scene, np.random.default_rng(seed)) for _ in range(2))
            assert_same(first, second)
