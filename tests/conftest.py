"""What every test runs under: eight CPU devices, no silent rank promotion, shapes checked."""

import functools
import gc
import os
import shutil
import socket
import subprocess
import tempfile

import jax
import jaxtyping
import pytest

# Before anything creates a device.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling is most of what the suite does: leave out LLVM's optimisations, which take eight times
# what the rest does. XLA's own passes, the partitioner's among them, run as ever.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", True)
# XLA's older code generator for elementwise loops takes half the time of the newer one.
# And a program's code is made in one piece, not in parallel pieces: the suite's workers are.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

# Programs compiled by one test or its subprocesses serve the others. The folder lives as long as
# the suite: pytest's workers inherit it from the process that starts them.
CACHE = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="condconv-jax-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# All that JAX keeps, more with every test, would be gone through again and again.
gc.set_threshold(100_000, 20, 20)


def check_shapes(decorated=None, *, typechecker):
    """As `jaxtyping.jaxtyped`, but leaves out functions inside functions.

    Those would be compiled anew, with their checks, whenever what they are in runs.
    """
    if decorated is None:
        return functools.partial(check_shapes, typechecker=typechecker)
    if "<locals>" in getattr(decorated, "__qualname__", ""):
        return decorated
    return JAXTYPED(decorated, typechecker=typechecker)


# The type annotations of public array functions hold in tests only; they cost time at each trace.
JAXTYPED, jaxtyping.jaxtyped = jaxtyping.jaxtyped, check_shapes
jaxtyping.install_import_hook("condconv_jax.ops", "beartype.beartype")
jaxtyping.install_import_hook("condconv_jax.nn", "beartype.beartype")


@pytest.fixture
def unchecked():
    """Without the suite's shape checks, which would refuse a wrong call before we do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def coordinator():
    """HOST:PORT on this machine, for processes that are to find each other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture
def mount_disk(tmp_path):
    """Makes a folder that is a disk of so many kB, in memory; called again, of another size."""
    folder, mounted = tmp_path / "disk", []

    def mount(kilobytes):
        options = f"size={kilobytes}k" + (",remount" if mounted else "")
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small file system is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
