"""Experts in fewer bytes, for inference: at batch 1 a CondConv costs what reading them takes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from condconv_jax.names import unknown_name

COMPRESSED = ("bfloat16", "int8")
# Kernels with a leading expert axis: (e, kh, kw, c/g, f) of CondConv, (e, c, f) of CondDense.
# Static ones have one axis fewer.
EXPERT_NDIM = (3, 5)
SCALE = "kernel_scale"


def compress_experts(params: Any, dtype: str) -> Any:
    """Returns parameters whose experts take half or a quarter of the bytes, for inference.

    The modules take them as they take the originals; experts are widened while they are mixed.
    Routers, biases, batch norms and static layers are left as they are.

    Args:
      params: of any model made of `CondConv` and `CondDense`.
      dtype: "bfloat16", or "int8": each expert rounded to 255 levels of its own scale, max |w| /
        127, kept beside it as `kernel_scale` (e,). Gradients by int8 experts do not exist.

    Raises:
      ValueError: for another dtype, or if there are no experts, or quantised ones.
    """
    if dtype not in COMPRESSED:
        raise unknown_name("compress_experts", "dtype", dtype, COMPRESSED)
    found = []

    def compress(tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        kernel = tree.get("kernel")
        result = {name: compress(child) for name, child in tree.items()}
        if kernel is not None and not isinstance(kernel, Mapping) and kernel.ndim in EXPERT_NDIM:
            if not jnp.issubdtype(kernel.dtype, jnp.floating):
                raise ValueError(f"compress_experts: there are experts in {kernel.dtype} already")
            found.append(kernel)
            if dtype == "bfloat16":
                result["kernel"] = kernel.astype(jnp.bfloat16)
            else:
                result["kernel"], result[SCALE] = quantize(kernel)
        return result

    compressed = compress(params)
    if not found:
        raise ValueError("compress_experts: no expert kernels in params; a static model has none")
    return compressed


@jax.jit
def quantize(experts: Array | np.ndarray) -> tuple[Array, Array]:
    """Returns experts (e, ...) as int8 and their scales (e,): experts = scale * int8, nearly."""
    largest = jnp.max(jnp.abs(experts), axis=tuple(range(1, experts.ndim)))
    scale = jnp.where(largest > 0, largest / 127, 1).astype(jnp.float32)
    levels = jnp.round(experts / scale.reshape(-1, *(1,) * (experts.ndim - 1)))
    return levels.astype(jnp.int8), scale


def expert_scale(module: nn.Module) -> Array | None:
    """Returns the scales (e,) of a module's quantised experts, None of others."""
    return module.get_variable("params", SCALE)


def computation_dtype(dtype: DTypeLike | None, x: Array, *params: Array | None) -> jnp.dtype:
    """Returns the dtype to compute in: the one asked for, or else what x and params promote to.

    As `flax.linen.dtypes.promote_dtype`, but for integer parameters, which have no say.
    """
    if dtype is not None:
        return jnp.dtype(dtype)
    floats = [p for p in params if p is not None and jnp.issubdtype(p.dtype, jnp.floating)]
    return jax.numpy.result_type(x, *floats)
