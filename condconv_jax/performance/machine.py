"""What the ops run on: its description, and its peaks, measured."""

import dataclasses
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from condconv_jax.performance.timing import interleave, ready

CPU_INFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What one device reaches, in SI units.

    Attributes:
      matmul: FLOP/s of a large matrix product, accumulated in at least float32.
      read: bytes/s read from memory, of an array that no cache holds.
      fresh: bytes/s written to memory that the program gets anew on each call.
    """

    matmul: float
    read: float
    fresh: float


def describe() -> dict[str, str | int | float]:
    """Returns what times depend on: processor, memory, device, versions and settings.

    Nothing in it names the machine, its user or a path on it.
    """
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": _usable_cores(),
        "memory_gib": round(_host_memory() / 2**30, 1),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "numpy")},
        "huge_pages": "requested" if _requests_huge_pages() else "not requested",
        "xla_flags": _without_paths(os.environ.get("XLA_FLAGS", "")),
    }


def measure_peaks(dtype: Any, *, seconds: float = 0.1, rounds: int = 7) -> Peaks:
    """Returns the peaks of the default device, each the median of `rounds` timings.

    Whatever else runs meanwhile lowers them.

    Args:
      dtype: of the matrix product; the two bandwidths are of bytes, whatever they mean.
      seconds: what one timing should last at least.
      rounds: timings of each.
    """
    on_cpu = jax.default_backend() == "cpu"
    # Sizes at which one call takes 20 ms or more on a few cores, and on an accelerator so long
    # that the microseconds of a launch do not count. Last-level caches hold less than the arrays.
    side = 2048 if on_cpu else 8192
    size = 256 * 2**20 if on_cpu else 2**31
    matrix = jnp.ones((side, side), dtype)
    array = jnp.ones(size // 4, jnp.float32)
    accumulator = jnp.promote_types(dtype, jnp.float32)

    @jax.jit
    def multiply(a: jax.Array) -> jax.Array:
        return jnp.dot(a, a, preferred_element_type=accumulator)

    @jax.jit
    def write(scale: jax.Array) -> jax.Array:
        return scale * jax.lax.iota(jnp.float32, size // 8)

    times = interleave(
        {
            "matmul": ready(multiply, matrix),
            "read": ready(jax.jit(jnp.sum), array),
            "fresh": ready(write, jnp.ones((), jnp.float32)),
        },
        rounds=rounds,
        seconds=seconds,
    )
    return Peaks(
        matmul=2 * side**3 / times["matmul"],
        read=size / times["read"],
        fresh=size / 2 / times["fresh"],
    )


def device_memory() -> int:
    """Returns the bytes that arrays on the default device can take, as far as is known."""
    limits = jax.devices()[0].memory_stats() or {}
    return limits.get("bytes_limit") or _host_memory()


def _processor() -> str:
    try:
        text = CPU_INFO.read_text()
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name.group(1).strip() if name else platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _host_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 0


def _requests_huge_pages() -> bool:
    return "glibc.malloc.hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "").split(":")


def _without_paths(flags: str) -> str:
    """XLA's flags; a value with a path in it (where to dump) becomes "..."."""
    return re.sub(r"=\S*[/\\]\S*", "=...", flags)
