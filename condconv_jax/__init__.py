"""Conditionally parameterized convolutions (CondConv) in JAX and Flax."""
