"""The paper's mathematics: pure functions on arrays (floor 1).

Axes, in every docstring and einsum of this package:
  b examples, h w height and width (of the input; h' w' of the output), c input channels,
  f output channels, e experts, kh kw kernel height and width, g feature groups.
Activations are (b, h, w, c); kernels (kh, kw, c/g, f); experts have a leading e.
"""

from condconv_jax.ops.cond_conv import cond_conv, cond_dense
from condconv_jax.ops.conv import conv
from condconv_jax.ops.expert_noise import (
    Routing,
    ShakenRouting,
    apply_routing,
    drop_experts,
    shake_experts,
)
from condconv_jax.ops.experts import (
    INITIALIZERS,
    fan_out_normal,
    fan_out_truncated_normal,
    mix_experts,
    per_expert,
)
from condconv_jax.ops.methods import METHODS
from condconv_jax.ops.per_example import per_example_conv
from condconv_jax.ops.routing import ACTIVATIONS, keep_top_k, route

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "METHODS",
    "Routing",
    "ShakenRouting",
    "apply_routing",
    "cond_conv",
    "cond_dense",
    "conv",
    "drop_experts",
    "fan_out_normal",
    "fan_out_truncated_normal",
    "keep_top_k",
    "mix_experts",
    "per_example_conv",
    "per_expert",
    "route",
    "shake_experts",
]
