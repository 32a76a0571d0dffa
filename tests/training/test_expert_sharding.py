"""A network whose experts are split over devices trains as one whose experts are whole."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from condconv_jax import models, tasks
from condconv_jax.nn import CondConv, CondDense
from condconv_jax.runtime import make_mesh, put_batch
from condconv_jax.training import init_state, make_optimizer, state_shardings, train_step

EXPERTS = 8
KEY = jax.random.key(1)


class TwoLayers(nn.Module):
    """A convolution and a classifier, both with experts."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = CondConv(32, 3, EXPERTS, dtype=jnp.float64)(images)
        return CondDense(5, EXPERTS, dtype=jnp.float64)(nn.relu(x).mean(axis=(1, 2)))


def mobilenet():
    small = {"width": 1 / 16, "early_strides": (1, 1, 2), "dtype": "float64"}
    return models.create("mobilenet_v1", 5, num_experts=EXPERTS, begin_layer=12, **small)


def prepare(model):
    task = tasks.Classification(model, 8, mean=(0.5,) * 3, std=(0.25,) * 3)
    return task, make_optimizer("rmsprop", 0.01, nesterov=False)


def batch_of(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (size, 8, 8, 3), np.uint8)
    return {"image": images, "label": rng.integers(0, 5, size).astype(np.int32)}


def trained(model, parts, batch_size):
    """State and loss after two steps, and the compiled step, on eight devices."""
    with jax.enable_x64(True):
        task, optimizer = prepare(model)
        mesh = make_mesh(expert_parts=parts)
        with jax.set_mesh(mesh):

            def make(key):
                state = init_state(task, optimizer, key, averages=True)
                return jax.tree.map(lambda leaf: leaf.astype(wide(leaf)), state)

            shardings = state_shardings(jax.eval_shape(make, KEY), mesh)
            state = jax.jit(make, out_shardings=shardings)(KEY)
            step = jax.jit(
                functools.partial(train_step, task, optimizer, average_decay=0.9),
                out_shardings=(shardings, None),
            )
            batch = put_batch(batch_of(batch_size), mesh)
            compiled = step.lower(state, batch, KEY).compile()
            for _ in range(2):
                state, metrics = compiled(state, batch, KEY)
        return state, float(metrics["loss"].total), compiled


def wide(leaf):
    return jnp.float64 if leaf.dtype == jnp.float32 else leaf.dtype


def on_one_device(tree):
    """Bytes of a tree on the first device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


# Two sets of four devices, with 16 examples each (experts are gathered) or 4 (mixed apart).
@pytest.mark.parametrize(
    ("make", "batch_size"),
    [(TwoLayers, 32), (TwoLayers, 8), pytest.param(mobilenet, 8, marks=pytest.mark.slow)],
)
def test_same_loss_and_weights_and_less_memory(make, batch_size):
    parts = 4
    whole, loss, plain = trained(make(), 1, batch_size)
    split, split_loss, divided = trained(make(), parts, batch_size)
    # The order of summation differs, in float64.
    assert split_loss == pytest.approx(loss, rel=1e-9)
    for got, want in zip(jax.tree.leaves(split), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)
    # What has experts is a quarter of what it was on each device: parameters, both moments of the
    # optimiser, the averages. The rest is small here.
    kernels = [leaf for leaf in jax.tree.leaves(split.params) if leaf.ndim == 5]
    assert {k.addressable_shards[0].data.shape[0] for k in kernels} == {EXPERTS // parts}
    assert on_one_device(split) < 1.5 / parts * on_one_device(whole)
    sizes = [c.memory_analysis().argument_size_in_bytes for c in (divided, plain)]
    assert sizes[0] < 1.5 / parts * sizes[1]


def test_what_is_split():
    state = {
        "layer_7": {
            "depthwise": {"kernel": jnp.zeros((4, 3, 3, 1, 5)), "bias": jnp.zeros((4, 5))},
            "static": {"kernel": jnp.zeros((3, 3, 4, 5)), "bias": jnp.zeros(4)},
            "odd": {"kernel": jnp.zeros((3, 3, 3, 1, 5)), "bias": jnp.zeros((3, 5))},
        },
        "odconv": {"kernel": jnp.zeros((4, 3, 3, 2, 5)), "bias": jnp.zeros(6)},
        "router_7": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)},
        "classifier": {"kernel": jnp.zeros((4, 6, 7)), "bias": jnp.zeros((4, 7))},
        "step": jnp.zeros(()),
    }
    mesh = make_mesh(expert_parts=2)
    found = state_shardings((state, [{"momentum": state}]), mesh)
    split = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, sharding in jax.tree_util.tree_leaves_with_path(found[1])
        if sharding.spec == PartitionSpec("expert")
    }
    layers = ("layer_7/depthwise", "classifier")
    names = {f"{name}/{leaf}" for name in layers for leaf in ("kernel", "bias")}
    assert split == {f"0/momentum/{name}" for name in (*names, "odconv/kernel")}
    assert jax.tree.leaves(found[0]) == jax.tree.leaves(found[1])
    plain = state_shardings(state, make_mesh())
    assert {sharding.spec for sharding in jax.tree.leaves(plain)} == {PartitionSpec()}


def test_parts_that_do_not_divide_the_devices_are_refused():
    with pytest.raises(ValueError, match="expert_parts is 3, devices are 8"):
        make_mesh(expert_parts=3)
