"""Linen modules that hold the parameters of the ops (floor 2)."""

from condconv_jax.nn.batch_norm import FoldedBatchNorm, GroupedBatchNorm
from condconv_jax.nn.compress import compress_experts
from condconv_jax.nn.cond_conv import CondConv
from condconv_jax.nn.cond_dense import CondDense
from condconv_jax.nn.deformable import DeformableConv
from condconv_jax.nn.dynamic_filter import DynamicFilterConv
from condconv_jax.nn.nnx import to_nnx
from condconv_jax.nn.odconv import ODConv
from condconv_jax.nn.parallel_kernels import ParallelKernels
from condconv_jax.nn.router import Router
from condconv_jax.nn.squeeze_excite import SqueezeExcite
from condconv_jax.nn.variables import init_variables, variable_shapes

__all__ = [
    "CondConv",
    "CondDense",
    "DeformableConv",
    "DynamicFilterConv",
    "FoldedBatchNorm",
    "GroupedBatchNorm",
    "ODConv",
    "ParallelKernels",
    "Router",
    "SqueezeExcite",
    "compress_experts",
    "init_variables",
    "to_nnx",
    "variable_shapes",
]
