"""Linen modules that hold the parameters of the ops (floor 2)."""

from condconv_jax.nn.compress import compress_experts
from condconv_jax.nn.cond_conv import CondConv
from condconv_jax.nn.cond_dense import CondDense
from condconv_jax.nn.nnx import to_nnx
from condconv_jax.nn.router import Router
from condconv_jax.nn.squeeze_excite import SqueezeExcite

__all__ = ["CondConv", "CondDense", "Router", "SqueezeExcite", "compress_experts", "to_nnx"]
