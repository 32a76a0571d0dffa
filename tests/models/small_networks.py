"""A MobileNetV1 small enough to compile often, with drawn parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax import models
from condconv_jax.nn import variable_shapes

IMAGES = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)


@functools.cache
def network(**options: Any) -> Any:
    small = {"width": 1 / 16, "num_experts": 3, "begin_layer": 4, "early_strides": (1, 2, 2)}
    return models.create("mobilenet_v1", num_classes=5, **small | options)


def shapes(model: Any, size: int = 32) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its path."""
    params = variable_shapes(model, size)["params"]
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(k.key for k in path): leaf.shape for path, leaf in flat}


def draw(
    model: Any, shape: tuple[int, ...] = IMAGES.shape, dtype: Any = jnp.float32
) -> tuple[Any, jax.Array]:
    """Variables without a compiled `init`, and images (b, h, w, 3), in float32.

    Args:
      model: a network.
      shape: of the images.
      dtype: of the variables that are no counters.
    """
    rng = np.random.default_rng(0)

    def leaf(path: Any, like: Any) -> jax.Array:
        name = path[-1].key
        values = rng.standard_normal(like.shape)
        if name in ("scale", "var"):
            values = 1 + 0.2 * np.tanh(values)
        elif name == "kernel":
            # The last axis counts outputs; experts and windows share the rest.
            values *= 2.5 / np.sqrt(max(1, np.prod(like.shape[-4:-1])))
        else:
            values *= 0.2
        # `jnp.asarray` compiles a program for each shape.
        floating = jnp.issubdtype(like.dtype, jnp.floating)
        return jax.device_put(values.astype(dtype if floating else like.dtype))

    like = variable_shapes(model, shape[1:3])
    images = jax.device_put(rng.standard_normal(shape).astype(np.float32))
    return jax.tree_util.tree_map_with_path(leaf, like), images


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    """Each leaf within tolerance of its largest entry."""
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        g, w = np.asarray(g), np.asarray(w)
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * np.abs(w).max())


def by_path(tree: Any) -> dict[str, Any]:
    """Leaves by path, "layer_2/expand/kernel"."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}
