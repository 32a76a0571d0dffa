"""Sparse routing of a network: the routers give all weights, the layers mix by k of them."""

import jax
import jax.numpy as jnp
import numpy as np
from small_networks import assert_close, draw, network

from condconv_jax import ops
from condconv_jax.models import RoutingOptions


def test_one_example_alone_is_that_example_of_a_batch(float64):
    # Alone it reads one of three experts in each layer, in a batch of three all of them.
    model = network(dtype=float64, begin_layer=13, routing=RoutingOptions(top_k=1))
    variables, images = draw(model)
    apply = jax.jit(lambda x: model.apply(variables, x))
    alone = [apply(images[b : b + 1]) for b in range(3)]
    # The classifier computes in float32.
    assert_close(jnp.concatenate(alone), apply(images[:3]), 1e-6)


def test_routers_see_all_weights_of_the_router_before():
    # Hierarchical routing appends what the routers gave; only what layers mix by is sparse.
    model = network(begin_layer=13, routing=RoutingOptions(top_k=1, hierarchical=True))
    variables, images = draw(model)
    _, state = jax.jit(
        lambda x: model.apply(
            variables, x, mutable=["routing", "intermediates"], capture_intermediates=True
        )
    )(images[:1])
    found = state["intermediates"]
    given = {n: found[f"router_{n}"]["__call__"][0] for n in (13, 14, 15)}
    params = variables["params"]["router_14"]
    pooled = found["layer_13"]["__call__"][0].mean(axis=(1, 2))
    features = jnp.concatenate([pooled, given[13]], axis=1)
    want = ops.route(features, params["kernel"], params["bias"])
    np.testing.assert_allclose(given[14], want, rtol=1e-5)
    assert all((np.asarray(weights) != 0).all() for weights in given.values())
    for part in ("depthwise", "pointwise"):
        mixed_by = state["routing"]["layer_14"][part]["weights"]
        np.testing.assert_array_equal(mixed_by, ops.keep_top_k(given[14], 1))


def test_other_experts_do_not_matter_to_one_example(float64):
    model = network(dtype=float64, begin_layer=14, routing=RoutingOptions(top_k=1))
    variables, images = draw(model)
    apply = jax.jit(lambda variables, x: model.apply(variables, x, mutable=["routing"]))
    want, state = apply(variables, images[:1])
    weights = state["routing"]["classifier"]["weights"]
    params = variables["params"]
    kernel = params["classifier"]["kernel"]
    unread = jnp.flatnonzero(weights[0] == 0)
    assert unread.size == 2
    poisoned = params["classifier"] | {"kernel": kernel.at[unread].set(jnp.nan)}
    variables = variables | {"params": params | {"classifier": poisoned}}
    np.testing.assert_array_equal(apply(variables, images[:1])[0], want)
    # Five examples take all of them, and are not mixed one by one: that would have told.
    assert np.isnan(apply(variables, images[:5])[0]).any()
