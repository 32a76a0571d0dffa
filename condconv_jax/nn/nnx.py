"""The modules in Flax NNX."""

import flax.linen as nn
from flax import nnx
from flax.nnx import bridge
from jaxtyping import Array


def to_nnx(module: nn.Module, example: Array, *, key: Array) -> nnx.Module:
    """Returns a module of this package as an NNX module with its parameters initialised.

    The parameters are `nnx.Param`s under the same names, so they train, filter and save like any
    other's; calling it runs the same op. Written on Flax's own bridge, because NNX's semantics
    still move and ours should not.

    Args:
      module: an unbound Linen module, e.g. `CondConv(64, (3, 3), num_experts=8)`.
      example: an input of the shape that the module will be called on, of any batch.
      key: random key for the parameters.

    To read the routing weights of a call, pass `mutable=["routing"]`; they are then its
    attribute `weights`.

    Examples:
      >>> layer = to_nnx(CondConv(64, (3, 3), num_experts=8), x, key=jax.random.key(0))
      >>> y = layer(x)
    """
    return bridge.ToNNX(module, rngs=nnx.Rngs(params=key)).lazy_init(example)
