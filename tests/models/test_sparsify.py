import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import assert_close, draw, network

from condconv_jax import models, nn
from condconv_jax.nn import variable_shapes

OPTIONS = [
    {},
    {"routing": {"activation": "softmax", "sharing": "partial"}},
    {"routing": {"sharing": "single"}, "squeeze_excite": 0.25},
    {"begin_layer": 0, "only_layer": 9},
]


def frozen(options):
    return {
        key: models.RoutingOptions(**v) if key == "routing" else v for key, v in options.items()
    }


def made(**options):
    return drawn(network(**frozen(options)))


@functools.cache
def drawn(model):
    variables, images = draw(model)
    return model, variables, images, models.mean_routing(model, variables, [images[:5], images[5:]])


@functools.cache
def compiled(model):
    return jax.jit(functools.partial(model.apply, train=False))


def run(model, variables, images):
    return compiled(model)(variables, images)


def in_float64(model, variables, images):
    # Routing by what layers compute makes rounding errors grow from layer to layer.
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    return run(model.clone(dtype="float64"), wide, np.asarray(images, np.float64))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_all_deviations_are_the_network(options):
    model, variables, images, means = made(**options)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    sparse, weights = models.sparsify(model, wide, means, model.num_experts)
    shapes = variable_shapes(sparse, images.shape[1])
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, dict(shapes))
    with jax.enable_x64(True):
        got, want = (in_float64(m, v, images) for m, v in ((sparse, weights), (model, wide)))
    # Routing is of the float32 that parameters are declared in: 6e-8, grown through ten layers.
    assert_close(got, want, 1e-6)


def test_means_are_those_of_the_routing_weights():
    model, variables, images, means = made()
    record = functools.partial(model.apply, train=False, mutable=["routing"])
    _, seen = jax.jit(record)(variables, images)
    for layer, of_router in (("layer_9/pointwise", "router_9"), ("classifier", "router_15")):
        tree = seen["routing"]
        for part in layer.split("/"):
            tree = tree[part]
        np.testing.assert_allclose(means[layer], tree["weights"].mean(0), atol=1e-5)
        np.testing.assert_array_equal(means[layer], means[of_router])


def test_one_deviation_by_hand():
    """The classifier of a network whose other layers are static."""
    model, variables, images, means = made(begin_layer=0, only_layer=15)
    sparse, weights = models.sparsify(model, variables, means, 1)
    params = variables["params"]
    record = functools.partial(
        model.apply,
        train=False,
        mutable=["routing", "intermediates"],
        capture_intermediates=lambda module, _: module.name == "layer_14",
    )
    _, seen = jax.jit(record)(variables, images)
    features = np.asarray(seen["intermediates"]["layer_14"]["__call__"][0]).mean((1, 2))
    routing, mean = np.asarray(seen["routing"]["classifier"]["weights"]), means["classifier"]
    deviations = routing - mean
    kept = deviations * (np.abs(deviations) == np.abs(deviations).max(1, keepdims=True))
    assert (kept < 0).any()  # those below the mean count as well
    assert (kept > 0).any()
    kernels = np.einsum("be,ecf->bcf", mean + kept, params["classifier"]["kernel"])
    biases = (mean + kept) @ params["classifier"]["bias"]
    want = np.einsum("bc,bcf->bf", features, kernels) + biases
    # The layers before were compiled another way here: rounding, grown through thirteen of them.
    np.testing.assert_allclose(run(sparse, weights, images), want, rtol=0, atol=1e-3)
    # One example alone reads the experts that it mixes and no others.
    np.testing.assert_allclose(run(sparse, weights, images[:1]), want[:1], rtol=0, atol=1e-3)


def test_fewer_deviations_are_nearer_than_fewer_weights():
    model, variables, images, _ = made()
    # Weights that move as little from picture to picture as those of trained networks.
    variables["params"] = {
        name: {**tree, "kernel": 0.05 * tree["kernel"]} if name.startswith("router") else tree
        for name, tree in variables["params"].items()
    }
    means = models.mean_routing(model, variables, [images])
    want = np.asarray(run(model, variables, images))
    plain = model.clone(routing=models.RoutingOptions(top_k=1))
    sparse, weights = models.sparsify(model, variables, means, 1)
    of_weights = np.abs(run(plain, variables, images) - want).mean()
    of_deviations = np.abs(run(sparse, weights, images) - want).mean()
    assert of_deviations < 0.1 * of_weights


def test_compressed_and_folded_afterwards():
    model, variables, images, means = made()
    sparse, weights = models.sparsify(model, variables, means, 2)
    folded, params = models.fold_batch_norm(sparse, weights)
    with jax.enable_x64(True):
        got, want = (in_float64(m, v, images) for m, v in ((folded, params), (sparse, weights)))
    # Folding rounds the weights to float32 (6e-8 each), which fourteen layers one after the other
    # make grow.
    assert_close(got, want, 5e-5)


def test_the_mean_expert_is_compressed_with_the_others():
    model, variables, images, means = made(begin_layer=0, only_layer=15)
    sparse, weights = models.sparsify(model, variables, means, 1)
    small = nn.compress_experts(weights["params"], "int8")
    assert small["classifier"]["kernel_scale"].shape == (4,)
    # Half of 1/127 of the largest weight of each expert.
    want = run(sparse, weights, images)
    assert_close(run(sparse, {**weights, "params": small}, images), want, 0.02)


@pytest.mark.parametrize(
    ("options", "can_be"),
    [
        ({}, True),
        ({"routing": {"activation": "softmax"}}, True),
        ({"routing": {"sharing": "single", "hidden": "small", "noise": "shake"}}, True),
        ({"num_experts": 0}, False),
        ({"num_experts": 1}, False),
        ({"cond_layer": "dynamic"}, False),
        ({"cond_layer": "odconv"}, False),
        ({"routing": {"activation": "relu"}}, False),
        ({"routing": {"activation": "tanh"}}, False),
        ({"routing": {"hierarchical": True}}, False),
        ({"routing": {"top_k": 2}}, False),
        ({"routing": {"centred": True}}, False),
    ],
    ids=str,
)
def test_which_networks_can_be_made_sparse(options, can_be):
    assert models.sparsifies(network(**frozen(options))) is can_be


def test_what_is_refused():
    model, variables, images, means = made()
    sparse, weights = models.sparsify(model, variables, means, 1)
    with pytest.raises(ValueError, match="sparse already"):
        models.sparsify(sparse, weights, means, 1)
    with pytest.raises(ValueError, match="top_k is 4; pass 1 to 3"):
        models.sparsify(model, variables, means, 4)
    with pytest.raises(ValueError, match="no experts"):
        models.sparsify(network(num_experts=0), variables, means, 1)
    for options, found in (
        ({"cond_layer": "odconv"}, "cond_layer is 'odconv', routing by 'sigmoid'; wants"),
        ({"routing": {"activation": "tanh", "hierarchical": True}}, "'tanh', hierarchical; wants"),
    ):
        with pytest.raises(ValueError, match=rf"sparsify: .*{found} \"condconv\""):
            models.sparsify(network(**frozen(options)), variables, means, 1)
    params = variables["params"]
    int8 = params | nn.compress_experts({"classifier": params["classifier"]}, "int8")
    message = r"sparsify: classifier/kernel is \(3, 64, 5\) in int8, .*; pass float experts"
    with pytest.raises(ValueError, match=message):
        models.sparsify(model, {**variables, "params": int8}, means, 1)
    of_two = means | {"classifier": means["classifier"][:2]}
    with pytest.raises(ValueError, match=r"for routing weights \(2,\); .*, one for each weight"):
        models.sparsify(model, variables, of_two, 1)
    with pytest.raises(ValueError, match="no images"):
        models.mean_routing(model, variables, [])
    with pytest.raises(ValueError, match="train the network that was made sparse"):
        sparse.apply(weights, images, train=True)
    with pytest.raises(ValueError, match="centred is for routing by sigmoid or softmax"):
        models.RoutingOptions(activation="tanh", centred=True)
    with pytest.raises(ValueError, match="centred is for routing by"):
        models.RoutingOptions(hierarchical=True, centred=True)
    odd = network(cond_layer="odconv", routing=models.RoutingOptions(centred=True))
    with pytest.raises(ValueError, match="centred is for CondConv layers alone"):
        odd.init(jax.random.key(0), images)
