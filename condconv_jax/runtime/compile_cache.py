"""Compiled programs kept from one run to the next, so that going on costs no second compilation."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

SWITCH = "CONDCONV_COMPILE_CACHE"
CPU_INFO = Path("/proc/cpuinfo")

# What tells two x86 or ARM processors apart for a compiler, as Linux names it.
_CPU_KEYS = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")


def enable_compile_cache() -> Path | None:
    """Has JAX keep what it compiles on disk, and returns the folder; None where it does not.

    The folder is ``condconv_jax/programs-MACHINE`` in the user's cache (``XDG_CACHE_HOME``, else
    ``~/.cache``). MACHINE stands for the processor's features: XLA compiles for those of the
    machine it runs on but JAX's key of a program leaves them out, and a home folder may be shared
    by machines of several kinds. A folder that was chosen already (``JAX_COMPILATION_CACHE_DIR``)
    stays, ``CONDCONV_COMPILE_CACHE=0`` asks for none, and where the folder cannot be written
    the run does without. Call it before anything is compiled.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        return Path(chosen)
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "condconv_jax" / f"programs-{machine()}"
        # Whoever can write there can have this user run any program.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def machine() -> str:
    """Returns a word that is the same on machines which run each other's programs."""
    lines = [platform.machine(), platform.system(), *_cpu_lines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _cpu_lines() -> list[str]:
    try:
        first = CPU_INFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:  # not Linux
        return [platform.processor()]
    return [line for line in first.splitlines() if line.split(":")[0].strip() in _CPU_KEYS]
