"""C++ on the CPU, for what XLA's compiler for it runs several times slower than the hardware could.

Depthwise kernels: each value is loaded once for all the taps that meet it, where XLA's loop over
shifted products loads input and kernel anew for every product. And mixing the kernels of a few
examples, in whatever width the experts are stored, without those of weight 0. The products of the
other layers are XLA's, and their gradients those of "fused".
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from condconv_jax.ops import native
from condconv_jax.ops.experts import mix_experts
from condconv_jax.ops.geometry import Geometry
from condconv_jax.ops.methods import mixed, spatial
from condconv_jax.ops.methods.method import Method
from condconv_jax.ops.native import depthwise, fused, mix
from condconv_jax.ops.partition import vary_alike


def run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    """Returns the per-example convolution, (b, h', w', f).

    Raises:
      ValueError: if x is wider than float32, or this machine has no compiled library.
    """
    native.require("native", x)
    x, experts, routing = vary_alike(x, experts, routing.astype(jnp.float32))
    if geometry.groups == 1 and x.dtype == experts.dtype == jnp.float32:
        return _one_group(x, experts, routing, geometry)
    return _run(x, experts, routing, geometry)


def _run(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    batch = routing.shape[0]
    if mix.pays(batch, experts):
        flat = experts.reshape(experts.shape[0], -1)
        kernels = mix.mix(flat, routing).astype(x.dtype).reshape(batch, *experts.shape[1:])
    else:
        kernels = mix_experts(experts, routing, x.dtype)
    return _product(x, kernels, geometry)


def _product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    if geometry.groups == x.shape[3]:
        return depthwise_product(x, kernels, geometry)
    if geometry.groups == 1:
        return mixed.product(x, kernels, geometry)
    return spatial.product(x, kernels, geometry)


# A kernel of its own is the faster way forward for a few examples, but its gradient has to be
# written and read again for every expert: classifier 1024 -> 1000, batch 1, 8 experts, forward and
# all gradients 27 ms against 5.3.
@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _one_group(x: Array, experts: Array, routing: Array, geometry: Geometry) -> Array:
    return _run(x, experts, routing, geometry)


_one_group.defvjp(
    lambda *arguments: (_one_group(*arguments), arguments[:3]),
    lambda geometry, saved, dy: fused.gradients(saved, dy, geometry),
)


def depthwise_product(x: Array, kernels: Array, geometry: Geometry) -> Array:
    """Returns the depthwise convolution of x with kernels (n, kh, kw, 1, f), n = b or 1.

    Computed in float32; x may be narrower.

    Raises:
      ValueError: as `run` does.
    """
    native.require("native", x)
    multiplier = kernels.shape[-1] // x.shape[-1]
    if multiplier > 1:
        x = jnp.repeat(x, multiplier, axis=-1)
    wide, kernels = vary_alike(x.astype(jnp.float32), kernels[:, :, :, 0, :].astype(jnp.float32))
    return depthwise.forward(wide, kernels, geometry, (wide.shape, kernels.shape)).astype(x.dtype)


METHOD = Method(run, _product, skips_zeros=True)
