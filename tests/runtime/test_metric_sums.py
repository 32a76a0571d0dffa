import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condconv_jax.runtime import (
    Sum,
    add,
    compute,
    fetch,
    make_mesh,
    put_batch,
    sum_of,
)


def sums(values, mask=None):
    return {"m": sum_of(jnp.asarray(values), None if mask is None else jnp.asarray(mask))}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=5))
def test_mean_over_uneven_batches_is_the_mean_over_all(batches):
    merged = add(*(sums(batch) for batch in batches))
    assert compute(merged)["m"] == np.mean(np.concatenate(batches))


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(5)), st.integers(0, 5))
def test_order_and_grouping_do_not_matter(order, split):
    # Powers of two: every sum is exact in float32, so equality is too.
    parts = [sums(2.0 ** np.arange(i + 1)) for i in range(5)]
    mixed = [parts[i] for i in order]
    grouped = add(add(*mixed[:split]), add(*mixed[split:]))
    assert fetch(grouped) == fetch(add(*parts))


def test_nothing_is_the_zero():
    one = sums([1.0, 2.0])
    assert fetch(add({}, one)) == fetch(one) == fetch(add(one, {}))
    assert add() == {}


def test_names_in_one_only_are_kept():
    merged = add({"a": sum_of(jnp.array([1.0]))}, {"b": sum_of(jnp.array([3.0, 5.0]))})
    assert compute(merged) == {"a": 1.0, "b": 4.0}


def test_mask_drops_examples_even_when_nan():
    values = jnp.array([1.0, 3.0, jnp.nan, jnp.inf])
    assert compute(sums(values, [True, True, False, False])) == {"m": 2.0}


def test_mask_covers_leading_axes():
    values = jnp.arange(6.0).reshape(2, 3)
    item = fetch(sums(values, [False, True]))["m"]
    assert (item.total, item.count) == (12.0, 3)


def test_padded_batch_equals_the_batch():
    values = np.array([0.5, 0.25, 1.0], np.float32)
    padded = np.concatenate([values, np.full(5, np.nan, np.float32)])
    assert fetch(sums(padded, np.arange(8) < 3)) == fetch(sums(values))


def test_booleans_and_bfloat16_are_summed_exactly():
    assert sum_of(jnp.ones(3, bool)).total.dtype == jnp.int32
    # In bfloat16 256 + 1 = 256.
    assert compute(sums(jnp.ones(1000, jnp.bfloat16)))["m"] == 1.0


def test_no_values_have_no_mean():
    assert math.isnan(compute(sums([1.0, 2.0], [False, False]))["m"])


def test_fetched_sums_keep_digits_that_float32_loses():
    big = {"m": Sum(np.float64(2.0**24), np.int64(1))}
    assert add(big, fetch(sums([1.0])))["m"].total == 2.0**24 + 1


def test_in_jit_and_scan():
    batches = jnp.arange(12.0).reshape(4, 3)

    @jax.jit
    def run(batches):
        zero = {"m": Sum(jnp.float32(0), jnp.int32(0))}
        return jax.lax.scan(lambda c, b: (add(c, {"m": sum_of(b)}), None), zero, batches)[0]

    assert compute(run(batches)) == {"m": 5.5}


def test_sharded_batch_gives_the_global_sum():
    mesh = make_mesh()
    batch = put_batch({"x": np.arange(16, dtype=np.float32), "mask": np.arange(16) < 13}, mesh)
    item = fetch({"m": jax.jit(sum_of)(batch["x"], batch["mask"])})["m"]
    assert (item.total, item.count) == (78.0, 13)


def test_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"mask is \(3,\), values \(2, 3\); the mask's axes"):
        sum_of(jnp.zeros((2, 3)), jnp.ones(3, bool))
