import numpy as np
import pytest

from condconv_jax.training import make_schedule


def test_warmup_then_half_a_cosine():
    rate = make_schedule("cosine", 0.4, total_steps=12, warmup_steps=4)
    np.testing.assert_allclose([rate(0), rate(2), rate(4)], [0.0, 0.2, 0.4], atol=1e-7)
    np.testing.assert_allclose(rate(8), 0.2, atol=1e-7)  # half way down
    np.testing.assert_allclose(rate(12), 0.0, atol=1e-7)
    assert make_schedule("cosine", 0.4, total_steps=10)(0) == pytest.approx(0.4)


def test_stairs_are_counted_from_the_first_step():
    """Stairs of 2.5 steps: floor(step / 2.5) is 1 at steps 3 and 4, 2 at 5, 3 at 8."""
    rate = make_schedule(
        "exponential", 0.4, total_steps=20, warmup_steps=4, decay_rate=0.5, decay_steps=2.5
    )
    np.testing.assert_allclose([rate(0), rate(1), rate(3)], [0.0, 0.1, 0.3], rtol=1e-6)
    np.testing.assert_allclose([rate(4), rate(5), rate(8)], [0.2, 0.1, 0.05], rtol=1e-6)


def test_the_official_efficientnet_schedule():
    """0.016 for 256 examples; 2048 of them: 0.128, after 350 epochs 0.97 ** 145 of that."""
    steps_per_epoch = 1281167 / 2048
    rate = make_schedule(
        "exponential",
        0.016 * 2048 / 256,
        total_steps=218949,
        warmup_steps=round(5 * steps_per_epoch),
        decay_steps=2.4 * steps_per_epoch,
    )
    np.testing.assert_allclose(rate(round(5 * steps_per_epoch)), 0.128 * 0.97**2, rtol=1e-6)
    np.testing.assert_allclose(rate(218948), 0.128 * 0.97**145, rtol=1e-4)


def test_constant_after_the_warmup():
    rate = make_schedule("constant", 0.4, total_steps=20, warmup_steps=2)
    np.testing.assert_allclose([rate(1), rate(2), rate(19)], [0.2, 0.4, 0.4], rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="10 warm-up steps of 10 in all; shorten"):
        make_schedule("cosine", 0.1, total_steps=10, warmup_steps=10)
    with pytest.raises(ValueError, match=r"unknown schedule 'cosin'.*did you mean 'cosine'"):
        make_schedule("cosin", 0.1, total_steps=10)
    with pytest.raises(ValueError, match=r"decay_rate is 1\.5"):
        make_schedule("exponential", 0.1, total_steps=10, decay_rate=1.5)
    with pytest.raises(ValueError, match=r"the learning rate is -0\.1; pass 0 or more"):
        make_schedule("cosine", -0.1, total_steps=10)
    make_schedule("cosine", 0.1, total_steps=10, decay_steps=0)  # which has no stairs
    with pytest.raises(ValueError, match="decay_steps 0"):
        make_schedule("exponential", 0.1, total_steps=10, decay_steps=0)
