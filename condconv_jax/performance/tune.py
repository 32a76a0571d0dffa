"""Every method against every other on this machine, and against what "auto" picks."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from condconv_jax.ops.methods import choose
from condconv_jax.performance.layers import Layer, device_arrays
from condconv_jax.performance.machine import device_memory
from condconv_jax.performance.passes import compile_pass, pass_arrays
from condconv_jax.performance.roofline import applicable, three_digits
from condconv_jax.performance.timing import interleave, ready

# A choice this much slower than the best method is off; less is within the noise.
TOLERANCE = 1.15

# A method is timed no further when its first timed call took longer than this many times the
# best method's, or this many seconds.
SLOWER, SECONDS = 20.0, 5.0


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one layer at one batch, number of experts and pass.

    Attributes:
      layer: its name.
      batch: b.
      num_experts: e.
      direction: "forward", or "gradients": forward and all gradients.
      dtype: of x and the experts.
      choice: what "auto" picks.
      seconds: median time of each method that was timed.
      skipped: why the others were not, by method.
    """

    layer: str
    batch: int
    num_experts: int
    direction: str
    dtype: str
    choice: str
    seconds: Mapping[str, float]
    skipped: Mapping[str, str]

    @property
    def best(self) -> str:
        """The fastest method."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """Time of the choice, as a multiple of the best method's."""
        return self.seconds[self.choice] / self.seconds[self.best]

    @property
    def off(self) -> bool:
        """Whether another method is faster by more than noise."""
        return self.ratio > TOLERANCE


def rule(layer: Layer, batch: int, itemsize: int) -> str:
    """Returns the method that "auto" picks."""
    shape = (batch, layer.size, layer.size, layer.channels)
    return choose(shape, layer.features, layer.geometry(batch), itemsize=itemsize)


def tune_row(
    layer: Layer, batch: int, num_experts: int, direction: str, dtype: Any, *, rounds: int = 7
) -> Row:
    """Returns the times of every method that can run a layer, in turn with each other.

    Args:
      layer: to time.
      batch: b.
      num_experts: e.
      direction: of `PASSES`.
      dtype: of x and the experts.
      rounds: timings of each method.
    """
    dtype = jnp.dtype(dtype)
    choice = rule(layer, batch, dtype.itemsize)
    arrays = device_arrays(layer.arrays(batch, num_experts, dtype))
    calls: dict[str, Callable[[], Any]] = {}
    skipped: dict[str, str] = {}
    # The choice first: it is the mark that the others are given up by. The reference last.
    for method in sorted(applicable(layer), key=lambda m: (m != choice, m == "reference")):
        if method != choice and (reason := hopeless(layer, batch, method, direction)):
            skipped[method] = reason
            continue
        compiled = compile_pass(layer.op(method), arrays, direction)
        if method != choice and (reason := too_large(compiled, device_memory())):
            skipped[method] = reason
            continue
        calls[method] = ready(compiled, *pass_arrays(arrays, direction))
    calls, slow = give_up(calls)
    return Row(
        layer=layer.name,
        batch=batch,
        num_experts=num_experts,
        direction=direction,
        dtype=dtype.name,
        choice=choice,
        seconds=interleave(calls, rounds=rounds),
        skipped={**skipped, **slow},
    )


def hopeless(layer: Layer, batch: int, method: str, direction: str) -> str | None:
    """Returns why a method is not even started, or None: a call of minutes cannot be interrupted.

    XLA's gradient of a grouped convolution by its kernel has no fast path on a CPU. On two cores
    one call for dw512 takes 45 s with "reference" (its groups are examples times channels) at
    batch 32, and 3 s with "mixture" at batch 1, 33 s at batch 8 (8 experts).
    """
    if jax.default_backend() != "cpu" or direction != "gradients":
        return None
    per_example = method == "reference" and layer.kernel > 1 and batch > 1
    if per_example or (method == "mixture" and layer.depthwise):
        return "not started, on a CPU its gradients can take minutes"
    return None


def give_up(
    calls: Mapping[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Returns the calls that are worth timing, and why each of the others is not.

    Args:
      calls: by name; the first is kept in any case. Each runs twice, for a first run may still
        load its program, and once if that takes longer than `SECONDS`.
      clock: in seconds.
    """
    kept: dict[str, Callable[[], Any]] = {}
    dropped: dict[str, str] = {}
    best = float("inf")
    for name, call in calls.items():
        seconds = _elapsed(call, clock)
        if seconds <= SECONDS:
            seconds = min(seconds, _elapsed(call, clock))
        best = min(best, seconds)
        if kept and (seconds > SECONDS or seconds > SLOWER * best):
            dropped[name] = f"one call took {three_digits(seconds * 1e3)} ms"
        else:
            kept[name] = call
    return kept, dropped


def too_large(compiled: jax.stages.Compiled, memory: int) -> str | None:
    """Returns why a program is not started in this memory, or None.

    Args:
      compiled: the program.
      memory: in bytes; 0 where it is not known.
    """
    analysis = compiled.memory_analysis()
    temporary = analysis.temp_size_in_bytes if analysis else 0
    if memory and temporary > memory / 2:
        return (
            f"not started, it needs {three_digits(temporary / 2**30)} GiB for intermediate results"
        )
    return None


def _elapsed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start
