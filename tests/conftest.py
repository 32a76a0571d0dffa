"""What every test runs under: eight CPU devices, no silent rank promotion, shapes checked."""

import os
import tempfile

import jax
import jaxtyping

# Before anything creates a device.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs compiled by one test or its subprocesses serve the others. The folder lives as long as
# the suite: pytest's workers inherit it from the process that starts them.
CACHE = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="condconv-jax-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# The type annotations of public array functions hold in tests only; they cost time at each trace.
jaxtyping.install_import_hook("condconv_jax.ops", "beartype.beartype")
jaxtyping.install_import_hook("condconv_jax.nn", "beartype.beartype")
