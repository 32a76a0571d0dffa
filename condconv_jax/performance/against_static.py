"""A layer as "auto" runs it against its static twin: what being conditional costs here."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from condconv_jax.performance.layers import Layer, device_arrays
from condconv_jax.performance.machine import Peaks
from condconv_jax.performance.passes import compile_pass, pass_arrays
from condconv_jax.performance.roofline import Bound, Cost, bound, cost
from condconv_jax.performance.timing import interleave, ready
from condconv_jax.performance.tune import rule


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was measured of one layer at one batch, number of experts and pass.

    Attributes:
      layer: its name.
      batch: b.
      num_experts: e.
      direction: "forward", or "gradients": forward and all gradients.
      dtype: of x and the experts.
      method: what "auto" picks.
      seconds: median time of the layer.
      static_seconds: of the convolution with one kernel for all examples.
      cost: of the method.
      bound: on its time.
    """

    layer: str
    batch: int
    num_experts: int
    direction: str
    dtype: str
    method: str
    seconds: float
    static_seconds: float
    cost: Cost
    bound: Bound

    @property
    def ratio(self) -> float:
        """Time as a multiple of the static twin's."""
        return self.seconds / self.static_seconds

    @property
    def fraction(self) -> float:
        """The bound as a fraction of the time: 1 is as fast as the machine can."""
        return self.bound.seconds / self.seconds


def compare(
    layer: Layer,
    batch: int,
    num_experts: int,
    direction: str,
    dtype: Any,
    peaks: Peaks,
    *,
    rounds: int = 7,
) -> Comparison:
    """Times a layer and its static twin, in turn.

    Args:
      layer: to time.
      batch: b.
      num_experts: e.
      direction: of `PASSES`.
      dtype: of x and the experts.
      peaks: of the machine.
      rounds: timings of each.
    """
    dtype = jnp.dtype(dtype)
    x, experts, routing, slope = device_arrays(layer.arrays(batch, num_experts, dtype))
    conditional, static = (x, experts, routing, slope), (x, experts[0], slope)
    times = interleave(
        {
            name: ready(compile_pass(op, arrays, direction), *pass_arrays(arrays, direction))
            for name, op, arrays in (
                ("conditional", layer.op(), conditional),
                ("static", layer.static_op(), static),
            )
        },
        rounds=rounds,
    )
    method = rule(layer, batch, dtype.itemsize)
    takes = cost(
        layer,
        batch,
        num_experts,
        method,
        gradients=direction == "gradients",
        itemsize=dtype.itemsize,
    )
    return Comparison(
        layer=layer.name,
        batch=batch,
        num_experts=num_experts,
        direction=direction,
        dtype=dtype.name,
        method=method,
        seconds=times["conditional"],
        static_seconds=times["static"],
        cost=takes,
        bound=bound(takes, peaks),
    )
