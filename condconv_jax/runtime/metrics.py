"""Metrics as sums and counts, so that means are exact over uneven, masked and spread batches.

A mean of batch means is wrong as soon as one batch is smaller or padded. Here a metric stays a
pair (total, count) until it is printed, and pairs are added, in any order and grouping: over
steps, over devices (a sum over a batch sharded by `mesh.put_batch` is the global sum already)
and over processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Num, Shaped


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sum:
    """A total and the number of values in it; a pytree.

    Attributes:
      total: (), float32, or int32 for boolean and integer values, whose sums are exact.
      count: (), int32: float32 would stop counting at 2**24.
    """

    total: Num[Array, ""] | np.number
    count: Num[Array, ""] | np.number


Sums = Mapping[str, Sum]
"""Metric name -> `Sum`."""


class Evaluation(NamedTuple):
    """What a task says of one global batch; a pytree.

    Attributes:
      sums: metrics that are means over examples.
      examples: for metrics that no sum can give (average precision), arrays (b, ...) of what the
        task's `scores` needs of each example, padding included; {} where there are none.
    """

    sums: Sums
    examples: Mapping[str, Array]


def sum_of(values: Shaped[Array, "*s"], mask: Bool[Array, "*p"] | None = None) -> Sum:
    """Returns the sum and number of the values, without those that the mask drops.

    Args:
      values: any shape, usually (b,); boolean for accuracies.
      mask: True where a value counts; its axes are the leading axes of `values`, usually (b,).

    Raises:
      ValueError: if the mask's shape is not a leading part of the values'.
    """
    values = jnp.asarray(values)
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    values = values.astype(jnp.float32 if floating else jnp.int32)
    if mask is None:
        return Sum(values.sum(), jnp.int32(values.size))
    mask = jnp.asarray(mask, bool)
    if mask.shape != values.shape[: mask.ndim]:
        raise ValueError(
            f"sum_of: mask is {mask.shape}, values {values.shape}; the mask's axes must be the "
            "leading axes of the values"
        )
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    # where, not a product: 0 * NaN of a padded example would be NaN.
    total = jnp.where(mask, values, jnp.zeros_like(values)).sum()
    return Sum(total, jnp.broadcast_to(mask, values.shape).sum(dtype=jnp.int32))


def add(*sums: Sums) -> dict[str, Sum]:
    """Returns the sums of all arguments together; names may be in some of them only.

    Associative and commutative, with ``{}`` as its zero, so a loop can start from ``{}``.
    Runs in jit, and on the host with `numpy` scalars.
    """
    out: dict[str, Sum] = {}
    for one in sums:
        for name, item in one.items():
            so_far = out.get(name)
            if so_far is None:
                out[name] = item
            else:
                out[name] = Sum(so_far.total + item.total, so_far.count + item.count)
    return out


def fetch(sums: Sums) -> dict[str, Sum]:
    """Returns the sums on the host as float64 and int64; waits for the device.

    Add fetched sums over a long evaluation: float32 totals lose digits, these don't.
    """
    host = jax.device_get(dict(sums))
    return {name: Sum(np.float64(item.total), np.int64(item.count)) for name, item in host.items()}


def compute(sums: Sums) -> dict[str, float]:
    """Returns the mean of each metric; NaN where nothing was counted."""
    return {
        name: float(item.total / item.count) if item.count else float("nan")
        for name, item in fetch(sums).items()
    }
