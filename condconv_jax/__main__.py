"""`python -m condconv_jax` is the command `condconv`."""

from condconv_jax.cli.main import run

run()
