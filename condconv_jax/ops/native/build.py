"""Compiling the C++ of this package on the machine that runs it, once, into a cache.

There is nothing to install and nothing to configure: where a C++ compiler is found, the ops that
have a native form use it; where none is, or compiling fails, they do without.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from condconv_jax.ops.geometry import Geometry

SOURCES = Path(__file__).parent / "src"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-march=native")

HANDLERS = (
    "DepthwiseForward",
    "DepthwiseInputGradient",
    "DepthwiseKernelGradient",
    "FusedForward",
    "FusedInputGradient",
    "FusedParameterGradient",
    "MixExperts",
)

_log = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Returns the compiled library, or None where there is none to be had.

    `CONDCONV_NATIVE=0` in the environment says to do without.
    """
    compiler = _compiler()
    if os.environ.get("CONDCONV_NATIVE") == "0" or compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_compile(compiler)))
    # RuntimeError: this user has no home.
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        details = getattr(error, "stderr", "") or str(error)
        _log.warning("condconv_jax: C++ not used, compiling it failed: %s", details[:500])
        return None


@functools.cache
def available() -> bool:
    """Whether this machine can run the functions of this package."""
    compiled = library()
    if compiled is None:
        return False
    for name in HANDLERS:
        capsule = jax.ffi.pycapsule(getattr(compiled, name))
        jax.ffi.register_ffi_target(f"condconv_{name}", capsule, platform="cpu")
    return True


def call(
    name: str, like: Array, shapes: tuple[tuple[Any, ...], ...], *arrays: Array, **attributes: Any
) -> tuple[Array, ...]:
    """Returns the float32 results of a handler.

    Args:
      name: one of `HANDLERS`.
      like: an array that varies over the devices of a shard_map as the results do.
      shapes: of the results.
      arrays: arguments.
      attributes: NumPy arrays.
    """
    results = jax.eval_shape(
        lambda: tuple(jnp.zeros_like(like, shape=shape, dtype=jnp.float32) for shape in shapes)
    )
    handler = jax.ffi.ffi_call(f"condconv_{name}", results, vmap_method="sequential")
    return tuple(handler(*arrays, **attributes))


def call_convolution(
    name: str, geometry: Geometry, shapes: tuple[tuple[Any, ...], ...], *arrays: Array
) -> tuple[Array, ...]:
    """Returns the float32 results of a handler that is told the geometry of a convolution."""
    return call(
        name,
        arrays[0],
        shapes,
        *arrays,
        strides=np.array(geometry.strides, np.int64),
        dilation=np.array(geometry.kernel_dilation, np.int64),
        low=np.array([low for low, _ in geometry.padding], np.int64),
    )


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    names = (named,) if named else COMPILERS
    return next((path for name in names if (path := shutil.which(name))), None)


def _compile(compiler: str) -> Path:
    """The path of the library, compiled unless it is in the cache."""
    sources = sorted(SOURCES.glob("*.cc"))
    target = _cache() / f"native-{_fingerprint(compiler)}.so"
    if target.exists():
        return target
    _log.info("condconv_jax: compiling %d C++ files, once", len(sources))
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Moved into place in one step: another process may be compiling the same.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / "native.so"
        subprocess.run(
            [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), "-o", built, *sources],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        os.replace(built, target)
    return target


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "condconv_jax"


def _fingerprint(compiler: str) -> str:
    """Of all that the library depends on; a home directory may serve several kinds of machine."""
    parts = [FLAGS, compiler, os.stat(compiler).st_mtime, version("jaxlib"), _processor()]
    parts += [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What "-march=native" depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features", "model"))]
    return "\n".join(sorted(set(lines)))
