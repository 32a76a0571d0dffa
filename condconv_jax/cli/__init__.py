"""The command `condconv` (floor 6)."""

from condconv_jax.cli.main import main

__all__ = ["main"]
