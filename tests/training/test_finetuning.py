import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.training import outside, transfer


def tree(classes, width=2):
    return {
        "layer_1": {"kernel": np.zeros((3, 3, 3, width), np.float32)},
        "classifier": {
            "kernel": np.zeros((4, width, classes), np.float32),
            "bias": np.zeros((4, classes), np.float32),
        },
        "router_15": {"kernel": np.zeros((width, 4), np.float32)},
    }


def ones_like(params):
    return {m: {k: np.ones_like(v) for k, v in leaves.items()} for m, leaves in params.items()}


def test_same_network_takes_everything():
    merged, kept = transfer(tree(10), ones_like(tree(10)))
    assert kept == []
    assert all((leaf == 1).all() for module in merged.values() for leaf in module.values())


def test_another_set_of_classes_starts_a_new_classifier():
    for classes in (5, 10):  # as many classes need not be the same ones
        merged, kept = transfer(tree(classes), ones_like(tree(10)), renew=("classifier",))
        assert kept == ["classifier/bias", "classifier/kernel"]
        assert merged["classifier"]["kernel"].shape == (4, 2, classes)
        assert (merged["classifier"]["kernel"] == 0).all()
        assert (merged["layer_1"]["kernel"] == 1).all()
        assert (merged["router_15"]["kernel"] == 1).all()


def test_compressed_experts_are_named():
    source = ones_like(tree(10))
    source["classifier"]["kernel_scale"] = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"kernel_scale is not in .*; its experts are compressed"):
        transfer(tree(10), source)


def test_another_network_is_refused_with_every_difference():
    source = ones_like(tree(10, width=3))
    source["extra"] = {"kernel": np.ones(1)}
    del source["router_15"]
    with pytest.raises(ValueError, match="the checkpoint is of another network") as error:
        transfer(tree(10), source)
    text = str(error.value)
    assert "layer_1/kernel is (3, 3, 3, 3), the network wants (3, 3, 3, 2)" in text
    assert "router_15/kernel is missing" in text
    assert "extra/kernel is not in the network" in text


def test_without_renewal_the_classifier_must_agree_too():
    with pytest.raises(ValueError, match=r"classifier/bias is .* wants"):
        transfer(tree(5), tree(10))


def test_shapes_will_do_for_the_network():
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree(10)))
    merged, _ = transfer(shapes, ones_like(tree(10)))
    assert (merged["layer_1"]["kernel"] == 1).all()


def test_a_module_inside_another_starts_anew():
    inside = lambda classes: {
        "exit_1": {"linear": {"bias": np.zeros(classes)}, "conv": {"kernel": np.zeros((2, 2))}},
        "exit_10": {"linear": {"bias": np.zeros(classes)}},
    }
    renew = ("exit_1/linear", "exit_10/linear")
    source = jax.tree.map(np.ones_like, inside(10))
    merged, kept = transfer(inside(5), source, renew=renew)
    assert kept == ["exit_1/linear/bias", "exit_10/linear/bias"]
    assert merged["exit_1"]["linear"]["bias"].shape == (5,)
    assert (merged["exit_1"]["conv"]["kernel"] == 1).all()
    # A name that only begins alike is another module.
    with pytest.raises(ValueError, match=r"exit_10/linear/bias is \(10,\), the network wants \(5,"):
        transfer(inside(5), source, renew=renew[:1])


def test_modules_of_neither_network_are_outside_of_both():
    leaf = np.zeros(1)
    detector = {"layer_1": {"depthwise": {"kernel": leaf}}, "scale_1": {"kernel": leaf}}
    classifier = {"layer_1": {"depthwise": {"kernel": leaf}}, "classifier": {"bias": leaf}}
    both = ("layer_1", "layer_1_bn")
    assert outside(both, detector, classifier) == ("classifier", "scale_1")
    assert outside(both, {"layer_1": detector["layer_1"]}) == ()
    # A name that only begins alike is another module, and so is one inside another.
    assert outside(both, {"layer_10": {"kernel": leaf}, "head": {"layer_1": leaf}}) == (
        "head",
        "layer_10",
    )
    state = {
        "batch_stats": {"layer_1_bn": {"mean": leaf}, "scale_1_bn": {"mean": leaf, "var": leaf}},
        "schedule": {"step": leaf},
    }
    renew = outside(both, state, within=1)
    assert renew == ("batch_stats/scale_1_bn", "schedule/step")
    _, kept = transfer(state, {"batch_stats": {"layer_1_bn": {"mean": leaf}}}, renew=renew)
    assert kept == ["batch_stats/scale_1_bn/mean", "batch_stats/scale_1_bn/var", "schedule/step"]
