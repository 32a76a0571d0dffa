import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from condconv_jax.training import make_optimizer
from condconv_jax.training.optimizers import decay_mask

PARAMS = {
    "layer_7": {"depthwise": {"kernel": jnp.ones((2, 3, 3, 1, 4))}},
    "BatchNorm_0": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
    "router_7": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)},
    "classifier": {"kernel": jnp.ones((2, 4, 3)), "bias": jnp.zeros((2, 3))},
}


@pytest.mark.parametrize(
    ("which", "decayed"),
    [
        ("kernels", ["classifier/kernel", "layer_7/depthwise/kernel", "router_7/kernel"]),
        (
            "all_but_batch_norm",
            ["classifier/bias", "classifier/kernel", "layer_7/depthwise/kernel",
             "router_7/bias", "router_7/kernel"],
        ),
    ],
)  # fmt: skip
def test_which_parameters_decay(which, decayed):
    mask = decay_mask(PARAMS, which)
    found = []
    for module, inner in mask.items():
        for name, leaf in inner.items():
            if isinstance(leaf, dict):
                found += [f"{module}/{name}/{key}" for key, on in leaf.items() if on]
            elif leaf:
                found.append(f"{module}/{name}")
    assert sorted(found) == decayed


def test_one_step_by_hand():
    """Gradient 1, weight 2, L2 0.5: slope 2, velocity 2, Nesterov 2 + 0.9 * 2 = 3.8."""
    optimizer = make_optimizer("sgd", 0.1, momentum=0.9, weight_decay=0.5)
    params = {"conv": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    gradient = {"conv": {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["conv"]["kernel"], [2 - 0.1 * 3.8], rtol=1e-6)
    np.testing.assert_allclose(after["conv"]["bias"], [2 - 0.1 * 1.9], rtol=1e-6)


def test_clipping_by_the_global_norm():
    optimizer = make_optimizer("sgd", 1.0, momentum=0.0, nesterov=False, clip_norm=1.0)
    params = {"a": {"kernel": jnp.zeros(2)}}
    updates, _ = optimizer.update({"a": {"kernel": jnp.array([3.0, 4.0])}}, optimizer.init(params))
    np.testing.assert_allclose(updates["a"]["kernel"], [-0.6, -0.8], rtol=1e-6)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"clip_norm is {wrong}; pass 0 \(no limit\) or more"):
            make_optimizer("sgd", 1.0, clip_norm=wrong)


def test_clipping_by_the_norm_of_the_weights():
    optimizer = make_optimizer("sgd", 1.0, momentum=0.0, nesterov=False, adaptive_clip=0.1)
    # Of two output channels with weights of the norm 5 the first has a gradient of 10, limited to
    # 0.5, the second one of 0.5, which is not. A bias of 0 counts as 0.001.
    params = {"kernel": jnp.array([[3.0, 3.0], [4.0, 4.0]]), "bias": jnp.zeros(2)}
    gradient = {"kernel": jnp.array([[6.0, 0.3], [8.0, 0.4]]), "bias": jnp.array([3.0, 4.0])}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [[-0.3, -0.3], [-0.4, -0.4]], rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-6e-5, -8e-5], rtol=1e-6)
    with pytest.raises(ValueError, match=r"adaptive_clip is -1; pass 0 \(no limit\) or more"):
        make_optimizer("sgd", 1.0, adaptive_clip=-1)


def test_clipping_takes_each_expert_by_itself():
    optimizer = make_optimizer("sgd", 1.0, momentum=0.0, nesterov=False, adaptive_clip=0.1)
    # As above, but that the output channels are two experts of one, and the biases of zeros theirs.
    weights = jnp.array([[3.0, 4.0], [3.0, 4.0]])
    gradients = jnp.array([[6.0, 8.0], [0.3, 0.4]])
    want = [[-0.3, -0.4], [-0.3, -0.4]]
    for shape in ((2, 2, 1), (2, 1, 2, 1, 1)):
        params = {"kernel": weights.reshape(shape), "bias": jnp.zeros((2, 2))}
        gradient = {"kernel": gradients.reshape(shape), "bias": gradients}
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        np.testing.assert_allclose(updates["kernel"].reshape(2, 2), want, rtol=1e-6)
        np.testing.assert_allclose(updates["bias"], [[-6e-5, -8e-5]] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("limit", "clipped"),
    # The gradient's norm is 10, limited to 1; or to a tenth of that of the weights, 5.
    [({"clip_norm": 1.0}, [0.6, 0.8]), ({"adaptive_clip": 0.1}, [0.3, 0.4])],
)
def test_weight_decay_is_not_clipped(limit, clipped):
    options = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.5}
    optimizer = make_optimizer("sgd", 1.0, **options, **limit)
    params = {"kernel": jnp.array([[3.0], [4.0]])}
    gradient = {"kernel": jnp.array([[6.0], [8.0]])}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    decay = 0.5 * np.array([3.0, 4.0])
    np.testing.assert_allclose(updates["kernel"][:, 0], -(clipped + decay), rtol=1e-6)


def test_clipping_leaves_kernels_of_classifiers_alone():
    """As the paper of adaptive clipping does; their biases are clipped."""
    options = {"momentum": 0.0, "nesterov": False, "adaptive_clip": 0.1}
    optimizer = make_optimizer("sgd", 1.0, **options, classifiers=["exit_1/linear"])
    module = {"linear": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}}
    params = {"exit_1": module, "exit_2": module}
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    first, second = updates["exit_1"]["linear"], updates["exit_2"]["linear"]
    found = [float(leaf.sum()) for leaf in (first["kernel"], first["bias"], second["kernel"])]
    np.testing.assert_allclose(found, [-1.0, -0.1, -0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("key", "wrong", "remedy"),
    [
        ("weight_decay", -1e-4, r"pass 0 \(none\) or more"),
        ("momentum", 1.0, "pass 0 to below 1"),
        ("momentum", -0.1, "pass 0 to below 1"),
        ("rms_decay", 5.0, "pass 0 to below 1"),
        ("epsilon", 0.0, "pass a positive number"),
        ("epsilon", float("nan"), "pass a positive number"),
    ],
)
def test_values_out_of_range(key, wrong, remedy):
    with pytest.raises(ValueError, match=rf"make_optimizer: {key} is {wrong}; {remedy}"):
        make_optimizer("rmsprop", 0.1, **{key: wrong})


def test_offsets_have_a_rate_of_their_own():
    """As two steps at a tenth of the rate, weight decay and velocity included."""
    params = {"a": {"offset": {"kernel": jnp.array([2.0])}, "kernel": jnp.array([2.0])}}
    gradient = jax.tree.map(jnp.ones_like, params)

    def after_two_steps(rate, **options):
        optimizer, moved = make_optimizer("sgd", rate, weight_decay=0.5, **options), params
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradient, state, moved)
            moved = optax.apply_updates(moved, updates)
        return moved["a"]

    slow, found = after_two_steps(0.01), after_two_steps(0.1, offset_rate=0.1)
    np.testing.assert_allclose(found["offset"]["kernel"], slow["offset"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(found["kernel"], after_two_steps(0.1)["kernel"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"offset_rate is -1; pass 0 \(fixed\) or more"):
        make_optimizer("sgd", 0.1, offset_rate=-1)


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown optimizer 'adm'; choose one of 'rmsprop', 'sgd'"):
        make_optimizer("adm", 0.1)
    with pytest.raises(ValueError, match=r"unknown decay mask 'kernel'.*did you mean 'kernels'"):
        make_optimizer("sgd", 0.1, decay="kernel")
    with pytest.raises(ValueError, match="unknown mask 'bn'"):
        decay_mask(PARAMS, "bn")


def test_two_steps_of_rmsprop_by_hand():
    """Gradients 2 and 1 at rate 0.1, decay 0.9, epsilon 0.5, momentum 0.8.

    Mean squares 0.9 * 1 + 0.1 * 4 = 1.3 and 0.9 * 1.3 + 0.1 = 1.27;
    velocities 0.1 * 2 / sqrt(1.8) = 0.1490712 and
    0.8 * 0.1490712 + 0.1 / sqrt(1.77) = 0.1944217.
    """
    optimizer = make_optimizer(
        "rmsprop", 0.1, momentum=0.8, nesterov=False, rms_decay=0.9, epsilon=0.5
    )
    params = {"conv": {"kernel": jnp.array([1.0])}}
    state, steps = optimizer.init(params), []
    for slope in (2.0, 1.0):
        updates, state = optimizer.update({"conv": {"kernel": jnp.array([slope])}}, state, params)
        steps.append(-float(updates["conv"]["kernel"][0]))
    np.testing.assert_allclose(steps, [0.1490712, 0.1944217], rtol=1e-5)
