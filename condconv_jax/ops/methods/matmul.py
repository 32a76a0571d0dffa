"""Each example's rows times its own matrix, with gradients in the order that XLA is fast in."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops.partition import vary_alike
from condconv_jax.ops.precision import wide


def rows_times_kernels(rows: Array, kernels: Array) -> Array:
    """Returns rows (b, n, k) times kernels (b, k, f), as (b, n, f) in their dtype.

    Sums are accumulated in at least float32.
    """
    return _product(*vary_alike(rows, kernels))


def _einsum(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=wide(a.dtype)).astype(a.dtype)


@jax.custom_vjp
def _product(rows: Array, kernels: Array) -> Array:
    return _einsum("bnk,bkf->bnf", rows, kernels)


def _backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    rows, kernels = saved
    # JAX derives the second as its transpose, "bnf,bnk->bfk", transposed: at batch 1 XLA transposes
    # anew for each expert that the gradient is spread over.
    return _einsum("bnf,bkf->bnk", slope, kernels), _einsum("bnk,bnf->bkf", rows, slope)


_product.defvjp(lambda *arrays: (_product(*arrays), arrays), _backward)
