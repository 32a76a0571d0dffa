"""The least time a layer can take: its arithmetic and its traffic against the machine's peaks.

With the axes of `ops`, n = h'*w' output positions and P = kh*kw*(c/g)*f weights of one kernel, a
layer of b examples has arrays of

  x = b*h*w*c    y = b*n*f    experts = e*P    kernels = b*P    routing = b*e (always float32)

values, and a method is two operations, each of two arguments:

  mixing     kernels = routing . experts         b*e*P MADDs
  product          y = x * kernels               b*n*P MADDs

"mixture" has no kernels but a map of each expert, of b*n*e*f values (the outputs) or, in 1x1
layers, b*n*e*c (the inputs, weighted, before the product):

  product       maps = x * experts               b*n*e*P MADDs
  weighting        y = routing . maps            b*n*e*f MADDs (b*n*e*c)

An operation reads its two arguments and writes its result. Each of its two gradients has the same
arithmetic and the same three arrays; so forward and all gradients take three times what the
forward pass takes. Two methods depart from that:

  "spatial" writes the windows of x, b*n*kh*kw*c values, before a product with a kernel over 1x1:
  in the forward pass they are written and read; for the gradients read, their own gradient written
  and read. x is met twice then, not three times: when windows are taken, and in its gradient.

  "tiled" and "fused" use their kernels a tile at a time: they stay in a cache and are no traffic,
  and they are mixed again for the gradients, b*e*P MADDs more.

Not counted: padding, and what XLA copies or reads again. Nor does the bound hold where the arrays
are in a cache when a call begins, as those of a small layer are that runs again and again.
"""

import dataclasses
import math
from collections.abc import Iterable

from condconv_jax import ops
from condconv_jax.names import unknown_name
from condconv_jax.performance.layers import Layer
from condconv_jax.performance.machine import Peaks


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call of a method takes.

    Attributes:
      flops: two for each multiply-add.
      bytes: read and written.
    """

    flops: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of one call.

    Attributes:
      seconds: that it takes at least.
      binds: "arithmetic" or "memory", whichever takes longer.
    """

    seconds: float
    binds: str


# Methods whose costs are known here: those that mix all kernels first, and the others.
KERNELS_IN_MEMORY = ("reference", "pointwise", "spatial", "mapped", "depthwise", "native")
KERNELS_IN_CACHE = ("tiled", "fused")
METHODS = (*KERNELS_IN_MEMORY, *KERNELS_IN_CACHE, "mixture")


def applicable(layer: Layer) -> list[str]:
    """Returns the methods that can run a layer, in the order of `ops.METHODS`."""
    geometry = layer.geometry()
    return [name for name, m in ops.METHODS.items() if m.refusal(layer.channels, geometry) is None]


def cost(
    layer: Layer,
    batch: int,
    num_experts: int,
    method: str,
    *,
    gradients: bool = False,
    itemsize: int = 4,
) -> Cost:
    """Returns the arithmetic and the traffic of a layer, by the formulas above.

    Args:
      layer: one of `LAYERS`, or of one's own.
      batch: b.
      num_experts: e.
      method: one of `METHODS`.
      gradients: forward and the gradients of x, experts and routing, instead of forward alone.
      itemsize: bytes of one value of x, y, experts and kernels; routing weights have 4.

    Raises:
      ValueError: if the method is unknown, or cannot run the layer.
    """
    if method not in METHODS:
        raise unknown_name("cost", "method", method, METHODS)
    geometry = layer.geometry()
    refusal = ops.METHODS[method].refusal(layer.channels, geometry)
    if refusal:
        raise ValueError(f"cost: {layer.name}: {refusal}")
    kh, kw, in_channels, features = layer.kernel_shape
    weights = kh * kw * in_channels * features
    positions = batch * geometry.out_size[0] * geometry.out_size[1]
    x, y = batch * layer.size**2 * layer.channels, positions * features
    experts, routing = num_experts * weights, batch * num_experts
    product, mixing = positions * weights, routing * weights
    operations = 3 if gradients else 1  # an operation, and its gradients by either argument

    if method == "mixture":
        maps = positions * num_experts * (layer.channels if geometry.is_pointwise() else features)
        madds = operations * (num_experts * product + maps)
        values = operations * (x + y + experts + 2 * maps)
    else:
        madds = operations * (product + mixing)
        values = operations * (x + y + experts)
        if method in KERNELS_IN_MEMORY:
            values += operations * 2 * batch * weights
        if method in KERNELS_IN_CACHE and gradients:
            madds += mixing
        if method == "spatial" and (kh, kw) != (1, 1):
            windows = positions * kh * kw * layer.channels
            values += 5 * windows - x if gradients else 2 * windows
    return Cost(2 * madds, itemsize * values + 4 * operations * routing)


def bound(cost: Cost, peaks: Peaks) -> Bound:
    """Returns the least time at these peaks: of arithmetic and memory, whichever takes longer."""
    arithmetic, memory = cost.flops / peaks.matmul, cost.bytes / peaks.read
    return Bound(max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory")


@dataclasses.dataclass(frozen=True)
class Row:
    """Cost and bound of one method of one layer.

    Attributes:
      layer: its name.
      method: that runs it.
      forward: cost of the forward pass.
      forward_bound: on its time.
      gradients: cost of the forward pass and all gradients.
      gradients_bound: on their time.
    """

    layer: str
    method: str
    forward: Cost
    forward_bound: Bound
    gradients: Cost
    gradients_bound: Bound


def rows(
    layers: Iterable[Layer], batch: int, num_experts: int, peaks: Peaks, *, itemsize: int = 4
) -> list[Row]:
    """Returns a row for every method that can run each layer.

    Args:
      layers: in the order wanted.
      batch: b.
      num_experts: e.
      peaks: of the machine.
      itemsize: bytes of one value.
    """
    found = []
    for layer in layers:
        for method in applicable(layer):
            forward, both = (
                cost(layer, batch, num_experts, method, gradients=g, itemsize=itemsize)
                for g in (False, True)
            )
            found.append(
                Row(layer.name, method, forward, bound(forward, peaks), both, bound(both, peaks))
            )
    return found


def markdown(rows: Iterable[Row]) -> str:
    """Returns the rows as a Markdown table, methods of the same cost in one line."""
    heads = ("GFLOP", "MB", "bound, ms", "binds")
    lines = [
        f"| layer | method | {' | '.join(heads)} | gradients: {' | '.join(heads)} |",
        "|---|---|" + "--:|--:|--:|---|" * 2,
    ]
    alike: dict[tuple[str, Cost, Cost], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.layer, row.forward, row.gradients), []).append(row)
    for row, *others in alike.values():
        cells = [row.layer, ", ".join([row.method, *(other.method for other in others)])]
        for takes, least in (
            (row.forward, row.forward_bound),
            (row.gradients, row.gradients_bound),
        ):
            numbers = takes.flops / 1e9, takes.bytes / 1e6, least.seconds * 1e3
            cells += [*map(three_digits, numbers), least.binds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def three_digits(value: float) -> str:
    """Returns a number with three digits, or with all of those before the point."""
    rounded = float(f"{value:.3g}")  # 9.999 is 10.0, not 10.00
    decimals = 2 - math.floor(math.log10(rounded)) if rounded > 0 else 0
    return f"{value:.{max(0, decimals)}f}"
