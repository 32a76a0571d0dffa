import dataclasses
import math
import os
import socket

import jax.numpy as jnp
import pytest

from condconv_jax.performance import machine


def test_description_has_what_times_depend_on():
    described = machine.describe()
    assert set(described) == {
        "processor",
        "cores",
        "memory_gib",
        "backend",
        "device",
        "python",
        "jax",
        "jaxlib",
        "numpy",
        "huge_pages",
        "xla_flags",
    }
    assert 1 <= described["cores"] <= (os.cpu_count() or 1)
    assert described["memory_gib"] > 0
    assert described["processor"]


def test_description_does_not_tell_where_it_was_made(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/ann/dump --xla_cpu_enable_fast_math=false")
    described = machine.describe()
    assert described["xla_flags"] == "--xla_dump_to=... --xla_cpu_enable_fast_math=false"
    text = " ".join(map(str, described.values()))
    assert socket.gethostname() not in text.split()
    assert "/home" not in text


@pytest.mark.parametrize(
    ("tunables", "want"),
    [
        (None, "not requested"),
        ("glibc.malloc.hugetlb=0", "not requested"),
        ("glibc.malloc.hugetlb=1", "requested"),
        ("glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1", "requested"),
    ],
)
def test_description_of_the_allocator(tunables, want, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if tunables is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    assert machine.describe()["huge_pages"] == want


def test_an_unknown_operating_system(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine, "CPU_INFO", machine.Path("nowhere"))
    described = machine.describe()
    assert described["processor"]
    assert described["cores"] >= 1


def test_peaks_are_work_over_time(monkeypatch):
    # Half a second for every call: 2 * 2048^3 FLOP, 256 MiB read, 128 MiB written.
    monkeypatch.setattr(machine, "interleave", lambda calls, **options: dict.fromkeys(calls, 0.5))
    peaks = machine.measure_peaks(jnp.float32)
    assert peaks == machine.Peaks(matmul=4 * 2048**3, read=512 * 2**20, fresh=256 * 2**20)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_peaks_of_this_machine(dtype):
    peaks = machine.measure_peaks(dtype, seconds=0, rounds=1)
    assert all(0 < value < math.inf for value in dataclasses.astuple(peaks))
