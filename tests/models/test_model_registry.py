import dataclasses

import pytest

from condconv_jax import models
from condconv_jax.models import RoutingOptions


def test_names_are_sorted_and_all_can_be_made():
    assert models.names() == sorted(models.MODELS)
    assert "mobilenet_v1" in models.names()
    for name in models.names():
        assert models.create(name, num_classes=3).num_classes == 3
    # Without a number, that of the publication.
    defaults = {name: models.create(name).num_classes for name in models.names()}
    of_other_sets = {"msdnet": 10, "ssd300_mobilenet_v1": 90}
    assert defaults == dict.fromkeys(models.names(), 1000) | of_other_sets


def test_routing_may_be_a_mapping():
    model = models.create("mobilenet_v1", routing={"sharing": "single", "top_k": 2})
    assert model.routing == RoutingOptions(sharing="single", top_k=2)
    given = RoutingOptions(hidden="small")
    assert models.create("mobilenet_v1", routing=given).routing == given
    assert models.create("mobilenet_v1").routing == RoutingOptions()


def test_lists_become_tuples_of_the_length_that_the_field_has():
    model = models.create("mobilenet_v1", early_strides=[1, 2, 2], cond_groups=[1, 2])
    assert (model.early_strides, model.cond_groups) == ((1, 2, 2), (1, 2))
    hash(model)
    scales = models.create("msdnet", growth_factors=(1, 2), bottleneck_factors=[1, 2])
    assert scales.growth_factors == scales.bottleneck_factors == (1, 2)


def test_the_callers_mapping_stays_as_it_was():
    options = {"width": 0.5, "routing": {"top_k": 1}}
    models.create("mobilenet_v1", **options)
    assert options == {"width": 0.5, "routing": {"top_k": 1}}


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (("mobilenetv1",), {}, "models.create: unknown model.*did you mean 'mobilenet_v1'?"),
        (("vgg",), {}, "unknown model 'vgg'; choose one of .*'mobilenet_v1'"),
        (("mobilenet_v1", 0), {}, "models.create: num_classes is 0; pass at least 1"),
        (
            ("mobilenet_v1",),
            {"num_expert": 8},
            r"models.create\('mobilenet_v1'\): unknown option 'num_expert'.*mean 'num_experts'",
        ),
        (
            ("mobilenet_v1",),
            {"early_strides": (1, 2)},
            r"is \(1, 2\); pass a value like \(2, 2, 2\)",
        ),
        (("mobilenet_v1",), {"cond_groups": 3}, r"is 3; pass a value like \(1, 2\), or \(\)"),
        (("mobilenet_v1",), {"cond_groups": (1.5,)}, r"cond_groups is \(1.5,\)"),
        (("mobilenet_v1",), {"parent": None}, "unknown option 'parent'"),
        (("mobilenet_v1",), {"name": "a"}, "multiple values|unknown option 'name'"),
        (
            ("mobilenet_v1",),
            {"routing": {"activations": "tanh"}},
            r"unknown option of routing 'activations'.*did you mean 'activation'",
        ),
        (
            ("mobilenet_v1",),
            {"routing": {"sharing": "singel"}},
            "RoutingOptions: unknown sharing 'singel'.*did you mean 'single'",
        ),
        (
            ("mobilenet_v1",),
            {"routing": {"hidden": "tiny"}},
            "RoutingOptions: unknown hidden 'tiny'; choose one of 'large', 'medium', 'none', 'sma",
        ),
        (
            ("mobilenet_v1",),
            {"routing": {"activation": "sigmiod"}},
            "RoutingOptions: unknown activation 'sigmiod'.*did you mean 'sigmoid'",
        ),
        (
            ("mobilenet_v1",),
            {"routing": {"temperature": 0}},
            "RoutingOptions: temperature is 0; pass a positive number",
        ),
        (
            ("mobilenet_v1",),
            {"routing": {"top_k": -1}},
            r"RoutingOptions: top_k is -1; pass 0 \(all\) or more",
        ),
    ],
)
def test_refusals(args, options, message):
    error = TypeError if "name" in options else ValueError
    with pytest.raises(error, match=message):
        models.create(*args, **options)


def test_routing_options_are_hashable_and_frozen():
    # They are a field of a Linen module.
    assert hash(RoutingOptions(top_k=2)) == hash(RoutingOptions(top_k=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        RoutingOptions().top_k = 3
