"""AutoAugment and RandAugment: what they draw, and how often."""

import re
from collections import Counter

import numpy as np
import pytest

from condconv_jax import data
from condconv_jax.data import augment

STEPS = {"autoaugment": data.AutoAugment(), "randaugment": data.RandAugment()}

# AutoAugment's sub-policies, each of two operations: name, tenths of its probability, level.
# Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py, policy_v0.
OFFICIAL_POLICY = """
equalize 8 1, shear_y 8 4; color 4 9, equalize 6 3; color 4 1, rotate 6 8;
solarize 8 3, equalize 4 7; solarize 4 2, solarize 6 2; color 2 0, equalize 8 8;
equalize 4 8, solarize_add 8 3; shear_x 2 9, rotate 6 8; color 6 1, equalize 10 2;
invert 4 9, rotate 6 0; equalize 10 9, shear_y 6 3; color 4 7, equalize 6 0;
posterize 4 6, autocontrast 4 7; solarize 6 8, color 6 9; solarize 2 4, rotate 8 9;
rotate 10 7, translate_y 8 9; shear_x 0 0, solarize 8 4; shear_y 8 0, color 6 4;
color 10 0, rotate 6 2; equalize 8 4, equalize 0 8; equalize 10 4, autocontrast 6 2;
shear_y 4 7, solarize_add 6 7; posterize 8 2, solarize 6 10; solarize 6 8, equalize 6 1;
color 8 6, rotate 4 5
"""


def noise(size=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.fixture
def carried_out(monkeypatch):
    """Operations that do nothing but note their name and level here."""
    notes = []

    def make_operations(**lengths):
        return {
            name: augment.Operation(
                lambda picture, level, _, name=name: (notes.append((name, level)), picture)[1],
                amount=lambda level: level,
            )
            for name in augment.make_operations(**lengths)
        }

    monkeypatch.setattr("condconv_jax.data.policies.make_operations", make_operations)
    return notes


def check_frequencies(counts, expected, draws):
    """Counts of events within 5 standard deviations of their expected share of the draws."""
    assert set(counts) <= {name for name, share in expected.items() if share > 0}
    for name, share in expected.items():
        deviation = 5 * np.sqrt(draws * share)  # at least a binomial's, and Poisson's
        assert abs(counts[name] - draws * share) <= deviation, name


def test_the_policy_has_25_sub_policies_of_2():
    assert len(data.IMAGENET_POLICY) == 25
    assert {len(parts) for parts in data.IMAGENET_POLICY} == {2}
    tenths = [p for parts in data.IMAGENET_POLICY for _, p, _ in parts]
    levels = [level for parts in data.IMAGENET_POLICY for *_, level in parts]
    assert {round(10 * p) / 10 for p in tenths} == set(tenths) <= {k / 10 for k in range(11)}
    assert set(levels) <= set(range(11))
    # Sums over the official table, which a slip in a row would change.
    assert round(sum(tenths), 9) == 29.8
    assert sum(levels) == 240


def test_the_policy_is_the_official_one():
    rows = OFFICIAL_POLICY.replace("\n", " ").split(";")
    parts = [[part.split() for part in row.split(",")] for row in rows]
    official = [[(name, int(p) / 10, int(level)) for name, p, level in row] for row in parts]
    assert [list(row) for row in data.IMAGENET_POLICY] == official


def test_autoaugment_carries_out_each_operation_as_often_as_its_policy_says(carried_out):
    step, rng, draws = data.AutoAugment(), np.random.default_rng(0), 5000
    for _ in range(draws):
        step(noise(1), rng)
    expected = Counter()
    for parts in data.IMAGENET_POLICY:
        for name, probability, level in parts:
            expected[name, level] += probability / 25
    check_frequencies(Counter(carried_out), expected, draws)


def test_autoaugment_runs_a_sub_policy_in_order(carried_out):
    step = data.AutoAugment(policy=((("invert", 1.0, 3), ("rotate", 1.0, 7)),))
    for seed in range(20):
        step(noise(1), np.random.default_rng(seed))
    assert carried_out == [("invert", 3), ("rotate", 7)] * 20


def test_randaugment_draws_every_operation_equally_often(carried_out):
    step, rng, draws = data.RandAugment(layers=3, magnitude=7), np.random.default_rng(0), 2000
    for number in range(draws):
        step(noise(1), rng)
        assert len(carried_out) == 3 * (number + 1)  # none is left out
    names = augment.make_operations(translate=1, cutout=1)
    expected = {(name, 7): 3 / 16 for name in names}
    assert len(expected) == 16
    check_frequencies(Counter(carried_out), expected, draws)


def test_lengths_are_those_of_the_official_code(monkeypatch):
    made = []
    original = augment.make_operations
    monkeypatch.setattr(
        "condconv_jax.data.policies.make_operations",
        lambda **lengths: (made.append(lengths), original(**lengths))[1],
    )
    data.AutoAugment()
    data.RandAugment()
    assert made == [{"translate": 250.0, "cutout": 100.0}, {"translate": 100.0, "cutout": 40.0}]


@pytest.mark.parametrize("name", STEPS)
def test_pictures_depend_on_the_generator_alone(name):
    step, image = STEPS[name], noise()
    results = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        results.append([step(image, rng) for _ in range(30)])
        np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    np.testing.assert_array_equal(*results)
    assert len({result.tobytes() for result in results[0]}) > 10
    for result in results[0]:
        assert (result.shape, result.dtype) == (image.shape, np.uint8)


@pytest.mark.parametrize("name", STEPS)
def test_every_number_of_processes_sees_the_same_pictures(name, pictures):
    source = data.ArraySource(*pictures, name="insects", class_names=("ant", "bee", "cat"))
    transform = data.make_transforms(8, train=True, augment=name)

    def images(start, process_index, process_count):
        batches = data.train_batches(
            source,
            transform,
            batch_size=4,
            seed=1,
            start=start,
            process_index=process_index,
            process_count=process_count,
            threads=1,
        )
        found = [next(batches)["image"] for _ in range(2)]
        batches.close()
        return found

    whole = [image for batch in images(0, 0, 1) + images(8, 0, 1) for image in batch]
    again = [image for batch in images(4, 0, 1) for image in batch]
    np.testing.assert_array_equal(again, whole[4:12])
    halves = zip(images(0, 0, 2), images(0, 1, 2), strict=True)
    parts = sorted(image.tobytes() for pair in halves for half in pair for image in half)
    assert parts == sorted(image.tobytes() for image in whole[:8])


@pytest.mark.parametrize("name", STEPS)
def test_real_pictures_stay_pictures(name, real_data):
    source = data.open_source("npz", "test[:64]", path=str(real_data / "cifar100"))
    transform = data.make_transforms(32, train=True, augment=name)
    changed = 0
    for number in range(len(source)):
        rng = np.random.default_rng(number)
        result = transform(source[number], rng)["image"]
        assert (result.shape, result.dtype) == ((32, 32, 3), np.uint8)
        assert result.flags.c_contiguous
        plain = data.make_transforms(32, train=True)(source[number], np.random.default_rng(number))[
            "image"
        ]
        changed += not np.array_equal(result, plain)
    assert changed > 32


def test_training_augments_after_the_flip_and_evaluation_never():
    crop, flip = data.PadAndRandomCrop(32, 4), data.RandomFlip()
    transform = data.make_transforms
    assert transform(32, train=True, augment="none").steps == (crop, flip)
    assert transform(32, train=True, augment="autoaugment").steps == (
        crop,
        flip,
        data.AutoAugment(),
    )
    assert transform(32, train=True, flip=False, augment="randaugment").steps == (
        crop,
        data.RandAugment(2, 10.0),
    )
    assert transform(
        32, train=True, augment="randaugment", randaugment_layers=3, randaugment_magnitude=17
    ).steps == (crop, flip, data.RandAugment(layers=3, magnitude=17))
    for name in data.AUGMENTATIONS:
        assert transform(32, train=False, augment=name).steps == (data.CentralWindow(32),)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: data.make_transforms(32, train=True, augment="autoaug"),
            r"make_transforms: unknown augment 'autoaug'; .*did you mean 'autoaugment'\?",
        ),
        (
            lambda: data.make_transforms(
                32, train=True, augment="randaugment", randaugment_layers=0
            ),
            r'RandAugment: got layers 0; pass at least 1, or augment="none"',
        ),
        (
            lambda: data.RandAugment(magnitude=-1),
            r"RandAugment: got magnitude -1; pass 0 or more",
        ),
        (lambda: data.AutoAugment(policy=()), r"AutoAugment: policy is empty"),
        (
            lambda: data.AutoAugment(policy=((("sharpnes", 0.5, 1),),)),
            r"AutoAugment: unknown operation 'sharpnes'; .*did you mean 'sharpness'\?",
        ),
        (
            lambda: data.AutoAugment(policy=((("invert", 1.5, 1),),)),
            r"AutoAugment: invert has probability 1.5; pass one from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=re.compile(message)):
        make()
