"""Which layers of each network are CondConv layers."""

import itertools

import jax
import pytest

from condconv_jax import models
from condconv_jax.models.network import Network
from condconv_jax.models.placement import Layout, choose_layers, make_groups
from condconv_jax.nn import variable_shapes

# Blocks by block group, and whether a head convolution follows them. MobileNetV1's groups are of
# 64, 128, 256, 512 and 1024 channels; depth 1.1 makes ceil(1.1 n) blocks of n.
BLOCKS = {
    "efficientnet_b0": ((1, 2, 2, 3, 3, 4, 1), True),
    "efficientnet_b0_depth": ((2, 3, 3, 4, 4, 5, 2), True),
    "efficientnet_b1": ((2, 3, 3, 4, 4, 5, 2), True),
    "mnasnet_a1": ((1, 2, 3, 4, 2, 3, 1), True),
    "mnasnet_a2": ((1, 2, 3, 4, 2, 3, 1), True),
    "mobilenet_v1": ((1, 2, 2, 6, 2), False),
    "mobilenet_v2": ((1, 2, 3, 4, 3, 3, 1), True),
    "resnet50": ((3, 4, 6, 3), False),
    "resnet_cifar": ((3, 3, 3), False),
}
# What the paper, the authors' response and the official code make conditional.
PUBLISHED = {
    "efficientnet_b0": range(10, 18),
    "efficientnet_b0_depth": range(14, 25),
    "efficientnet_b1": range(14, 25),
    "mnasnet_a1": range(14, 19),
    "mnasnet_a2": range(14, 19),
    "mobilenet_v1": range(7, 16),
    "mobilenet_v2": range(2, 21),
    "resnet50": range(15, 18),
    "resnet_cifar": range(8, 11),  # as ResNet-50, for which it stands in
}
# A network whose blocks are layers 2 and 3 | 4 | 5 to 7, with a head 8 and a classifier 9.
SMALL = Layout(((2, 3), (4,), (5, 6, 7)), {8: ("cond_head", False), 9: ("cond_classifier", True)})
STATIC_END = Layout(((2,),), {3: ("cond_head", False), 4: ("cond_classifier", False)})


def test_groups_are_numbered_from_2():
    assert make_groups((1, 3, 2)) == ((2,), (3, 4, 5), (6, 7))
    assert make_groups(()) == ()


def test_the_last_layer_is_the_classifier():
    assert (SMALL.last, STATIC_END.last) == (9, 4)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"begin_layer": 1}, {1, 2, 3, 4, 5, 6, 7, 9}),
        ({"begin_layer": 6}, {6, 7, 9}),
        ({"begin_layer": 8}, {9}),
        ({"begin_layer": 9}, {9}),
        # The one layer that was asked for, whatever the options say of it.
        ({"only_layer": 1}, {1}),
        ({"only_layer": 8}, {8}),
        ({"only_layer": 9}, {9}),
        ({"cond_groups": (2,)}, {4, 9}),
        ({"cond_groups": (3, 1)}, {2, 3, 5, 6, 7, 9}),
        ({"cond_groups": (2, 2)}, {4, 9}),
    ],
)
def test_choices_by_hand(options, want):
    assert choose_layers("Net", SMALL, **options) == want


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (SMALL, {}, "^Net: none of begin_layer, only_layer, cond_groups; set one of them$"),
        (
            SMALL,
            {"begin_layer": 3, "only_layer": 2},
            "^Net: begin_layer 3 and only_layer 2 of begin_layer, only_layer, cond_groups; set one",
        ),
        (
            SMALL,
            {"begin_layer": 3, "cond_groups": (1,)},
            r"Net: begin_layer 3 and cond_groups \(1,\) of .*; set one of them",
        ),
        (SMALL, {"only_layer": 3, "cond_groups": (1, 2)}, r"only_layer 3 and cond_groups \(1, 2\)"),
        (
            SMALL,
            {"begin_layer": 10},
            r"^Net: begin_layer is 10; pass 1 to 9 \(1 is the first convolution, 9 the classifier"
            r"\), or 0 to choose otherwise$",
        ),
        (SMALL, {"begin_layer": -1}, "Net: begin_layer is -1; pass 1 to 9"),
        (SMALL, {"only_layer": 10}, "Net: only_layer is 10; pass 1 to 9"),
        (SMALL, {"only_layer": -2}, "Net: only_layer is -2; pass 1 to 9"),
        (
            SMALL,
            {"cond_groups": (1, 4)},
            r"^Net: cond_groups is \(1, 4\); pass block groups from 1 to 3$",
        ),
        (SMALL, {"cond_groups": (0,)}, r"cond_groups is \(0,\); pass block groups from 1 to 3"),
        (
            STATIC_END,
            {"begin_layer": 3},
            "^Net: begin_layer 3 leaves no CondConv layer; lower it, or set cond_head, "
            "cond_classifier to True$",
        ),
        (STATIC_END, {"begin_layer": 4}, "begin_layer 4 leaves no CondConv layer"),
    ],
)
def test_refusals(layout, options, message):
    with pytest.raises(ValueError, match=message):
        choose_layers("Net", layout, **options)


# The networks.


def layers_of(name):
    """Block groups, head (None if there is none) and classifier, by hand."""
    blocks, has_head = BLOCKS[name]
    ends = list(itertools.accumulate(blocks, initial=2))
    groups = [range(a, b) for a, b in itertools.pairwise(ends)]
    return groups, ends[-1] if has_head else None, ends[-1] + has_head


def head_option(head, value):
    return {} if head is None else {"cond_head": value}


def without_none(*layers):
    return {layer for layer in layers if layer is not None}


def make(name, **options):
    return models.create(name, num_classes=7, **{"num_experts": 2, "width": 0.1} | options)


def chosen(name, **options):
    return make(name, **options).conditional_layers()


NAMES = sorted(BLOCKS)


def test_these_are_all_networks():
    named = models.names("classification")
    networks = [name for name in named if issubclass(models.MODELS[name], Network)]
    assert networks == NAMES == sorted(PUBLISHED)
    assert set(named) - set(networks) == {"msdnet"}
    # tests/models/test_ssd.py has those of the detector.
    assert models.names("detection") == ["ssd300_mobilenet_v1"]
    assert models.names() == sorted([*named, "ssd300_mobilenet_v1"])


@pytest.mark.parametrize("name", NAMES)
def test_layout(name):
    groups, head, classifier = layers_of(name)
    layout = models.create(name).layout()
    assert layout.groups == tuple(map(tuple, groups))
    assert set(layout.optional) == without_none(head, classifier)
    assert layout.last == classifier


@pytest.mark.parametrize("name", NAMES)
def test_from_a_layer_on(name):
    groups, head, classifier = layers_of(name)
    both = head_option(head, True) | {"cond_classifier": True}
    neither = head_option(head, False) | {"cond_classifier": False}
    for first in range(1, classifier + 1):
        assert chosen(name, begin_layer=first, **both) == {*range(first, classifier + 1)}
    for first in range(1, groups[-1][-1] + 1):
        assert chosen(name, begin_layer=first, **neither) == {*range(first, groups[-1][-1] + 1)}
    if head is not None:
        only_head = {"cond_head": True, "cond_classifier": False}
        assert chosen(name, begin_layer=head, **only_head) == {head}
        only_classifier = {"cond_head": False, "cond_classifier": True}
        assert chosen(name, begin_layer=head, **only_classifier) == {classifier}


@pytest.mark.parametrize("name", NAMES)
def test_one_layer_alone(name):
    _, head, classifier = layers_of(name)
    neither = head_option(head, False) | {"cond_classifier": False}
    for layer in range(1, classifier + 1):
        assert chosen(name, only_layer=layer, **neither) == {layer}


@pytest.mark.parametrize("name", NAMES)
def test_block_groups(name):
    groups, head, classifier = layers_of(name)
    both = head_option(head, True) | {"cond_classifier": True}
    want = {*groups[0], *groups[2], *without_none(head), classifier}
    assert chosen(name, cond_groups=(1, 3), **both) == want
    neither = head_option(head, False) | {"cond_classifier": False}
    for number, group in enumerate(groups, 1):
        assert chosen(name, cond_groups=(number,), **neither) == {*group}


@pytest.mark.parametrize("name", NAMES)
def test_without_experts_there_are_none(name):
    for options in ({}, {"begin_layer": 2}, {"only_layer": 2}, {"cond_groups": (2,)}):
        for num_experts in (0, 1):
            assert chosen(name, num_experts=num_experts, **options) == frozenset()


def built(name, **options):
    """(layers whose kernels have experts, layers that routers are named after), by shapes."""
    params = variable_shapes(make(name, **options), 32)["params"]
    classifier = layers_of(name)[-1]
    kernels: dict[int, set[bool]] = {}
    routers = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        module, *inner = (key.key for key in path)
        if module.startswith("router_"):
            routers.add(int(module.removeprefix("router_")))
        elif inner[-1] == "kernel" and "se" not in inner:
            dense = module == "classifier"
            layer = classifier if dense else int(module.removeprefix("layer_"))
            static = 2 if dense else 4
            assert leaf.ndim in (static, static + 1), path
            kernels.setdefault(layer, set()).add(leaf.ndim > static)
    assert set(kernels) == set(range(1, classifier + 1))
    # All convolutions of a block, or none.
    assert all(len(conditional) == 1 for conditional in kernels.values())
    return {layer for layer, conditional in kernels.items() if conditional == {True}}, routers


# These have the layout and the placement of another, so that what is built is the same.
TWINS = {"efficientnet_b0_depth": "efficientnet_b1", "mnasnet_a2": "mnasnet_a1"}
BUILT = [pytest.param(name, marks=[pytest.mark.slow] * (name in TWINS)) for name in NAMES]


def test_twins_are_alike():
    for name, twin in TWINS.items():
        assert BLOCKS[name] == BLOCKS[twin]
        assert PUBLISHED[name] == PUBLISHED[twin]


@pytest.mark.parametrize("name", BUILT)
def test_published_layers(name):
    assert built(name) == (set(PUBLISHED[name]), set(PUBLISHED[name]))


@pytest.mark.parametrize("name", BUILT)
def test_a_static_network_has_neither_experts_nor_routers(name):
    assert built(name, num_experts=0) == (set(), set())


@pytest.mark.parametrize("name", BUILT)
def test_conditional_layers_and_no_others_have_experts_and_a_router(name):
    groups, head, classifier = layers_of(name)
    both = head_option(head, True) | {"cond_classifier": True}
    everything = set(range(1, classifier + 1))
    assert built(name, begin_layer=1, **both) == (everything, everything)
    neither = head_option(head, False) | {"cond_classifier": False}
    some = {*groups[0], *groups[2]}
    assert built(name, cond_groups=(1, 3), **neither) == (some, some)
    one = {head or 1}
    assert built(name, only_layer=head or 1, **neither) == (one, one)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_refuses_two_choices_and_wrong_numbers(name):
    groups, head, classifier = layers_of(name)
    where = type(models.create(name)).__name__
    refused = {
        f"^{where}: begin_layer 2 and only_layer 3 of .*; set one of them": {
            "begin_layer": 2,
            "only_layer": 3,
        },
        rf"^{where}: begin_layer 2 and cond_groups \(1,\) of": {
            "begin_layer": 2,
            "cond_groups": (1,),
        },
        f"^{where}: begin_layer is {classifier + 1}; pass 1 to {classifier} ": {
            "begin_layer": classifier + 1
        },
        f"^{where}: only_layer is -1; pass 1 to {classifier} ": {"only_layer": -1},
        f"block groups from 1 to {len(groups)}$": {"cond_groups": (len(groups) + 1,)},
        f"^{where}: begin_layer {classifier} leaves no CondConv layer; .*cond_classifier": {
            "begin_layer": classifier,
            "cond_classifier": False,
            **head_option(head, False),
        },
    }
    for message, options in refused.items():
        # In a static network too: a wrong number is one there.
        for num_experts in (0, 2):
            model = models.create(name, num_experts=num_experts, **options)
            with pytest.raises(ValueError, match=message):
                model.conditional_layers()
