"""A network with experts in fewer bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import IMAGES, assert_close, draw, network

from condconv_jax import nn
from condconv_jax.models import RoutingOptions


def dequantized(params):
    """The parameters that int8 ones stand for, experts in float64."""
    if not isinstance(params, dict):
        return params
    result = {name: dequantized(child) for name, child in params.items() if name != "kernel_scale"}
    if "kernel_scale" in params:
        kernel, scale = (params[name].astype("float64") for name in ("kernel", "kernel_scale"))
        result["kernel"] = kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 1))
    return result


@pytest.mark.parametrize(
    ("batch", "routing"),
    [(3, RoutingOptions()), (1, RoutingOptions(top_k=1))],
    ids=["three", "one by one expert"],
)
def test_int8_logits_are_those_of_the_rounded_experts_and_near_the_exact(float64, batch, routing):
    model = network(dtype=float64, begin_layer=14, routing=routing)
    variables, images = draw(model)
    compressed = nn.compress_experts(variables["params"], "int8")
    apply = jax.jit(lambda params: model.apply(variables | {"params": params}, images[:batch]))
    got, exact = apply(compressed), apply(variables["params"])
    # The classifier computes in float32.
    assert_close(got, apply(dequantized(compressed)), 1e-6)
    # Drawn parameters, and so no margin that training would make: a few percent.
    assert_close(got, exact, 0.05)
    assert not np.allclose(got, exact, rtol=1e-4)


def shapes_after(dtype, **options):
    """What `compress_experts` makes of a network's parameters, without computing it."""
    variables = jax.eval_shape(network(**options).init, jax.random.key(0), IMAGES)
    return jax.eval_shape(lambda params: nn.compress_experts(params, dtype), variables["params"])


def test_which_parameters_are_compressed():
    flat = jax.tree_util.tree_leaves_with_path(shapes_after("int8", begin_layer=13))
    dtypes = {"/".join(k.key for k in path): leaf.dtype for path, leaf in flat}
    narrow = {name for name, dtype in dtypes.items() if dtype == jnp.int8}
    blocks = [f"layer_{n}/{part}" for n in (13, 14) for part in ("depthwise", "pointwise")]
    assert narrow == {f"{layer}/kernel" for layer in (*blocks, "classifier")}
    scales = {name for name in dtypes if name.endswith("kernel_scale")}
    assert scales == {f"{name}_scale" for name in narrow}


def test_a_static_network_has_none():
    with pytest.raises(ValueError, match="no expert kernels in params; a static model has none"):
        shapes_after("bfloat16", num_experts=0)
