"""What every test runs under: eight CPU devices, no silent rank promotion, shapes checked."""

import os

import jax
import jaxtyping

# Before anything creates a device.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The type annotations of public array functions hold in tests only; they cost time at each trace.
jaxtyping.install_import_hook("condconv_jax.ops", "beartype.beartype")
jaxtyping.install_import_hook("condconv_jax.nn", "beartype.beartype")

# Subprocesses of tests share the machine with the suite itself.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
