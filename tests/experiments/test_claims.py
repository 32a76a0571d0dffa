"""The claims, their networks and their runs, in both protocols."""

import math
import shlex

import claim_networks
import claims
import claims_large
import jax
import numpy as np
import pytest

from condconv_jax import analysis
from condconv_jax import config as configs
from condconv_jax.cli.flags import config_from_file

CLASSES = 100


def model_of(run):
    config = config_from_file(run.config, run.arguments()[1:]).to_dict()
    return configs.make_model(config["model"], CLASSES)


def test_every_run_is_of_a_network_that_there_is():
    names = [run.name for run in claims.SWEEP]
    assert len(set(names)) == len(names)
    built = {}
    for name, variant in claims.PLAN.variants().items():
        run = variant.run(0)
        built[name] = model_of(run)
        assert run.name in names
    # MnasNet-A2 is another network than A1, which it would not be at less width.
    a1, a2 = (analysis.count_madds(built[f"mnasnet_{name}"], 32) for name in ("a1", "a2"))
    assert a1 < a2
    # Static networks have no conditional layer, all others have those that their claim is about.
    del built["msdnet"]
    conditional = {name: model.conditional_layers() for name, model in built.items()}
    assert conditional["static"] == conditional["width0.125_static"] == frozenset()
    assert conditional["only7"] == {7}
    assert conditional["no_classifier"] == conditional["experts8"] - {15}
    assert built["softmax"].routing.activation == "softmax"


def test_mixing_costs_less_beside_larger_pictures():
    variants = claims.PLAN.variants()
    cost = {
        name: analysis.count_madds(model_of(variants[name].run(0)), size)
        for name, size in (("static", 32), ("experts8", 32), ("tiny_static", 64), ("tiny_8", 64))
    }
    # Four times the places of every map, and as many multiply-adds for each kernel.
    assert cost["tiny_8"] - cost["tiny_static"] < 1.2 * (cost["experts8"] - cost["static"])
    assert cost["tiny_static"] > 3.8 * cost["static"]


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.key)
def test_the_multiply_adds_are_compared_with_one_of_its_networks(claim):
    assert claim.reference in {variant.name for variant in (*claim.variants, claim_networks.STATIC)}


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.key)
def test_the_command_for_imagenet_is_one(claim):
    program, verb, config, *overrides = shlex.split(claim.imagenet)
    assert (program, verb) == ("condconv", "train")
    found = config_from_file(config.removeprefix("--config="), overrides).to_dict()
    assert configs.make_model(found["model"], 1000).conditional_layers()


def test_epochs_are_those_of_the_protocol():
    assert config_from_file(claim_networks.STATIC.run(0).config, []).epochs == claim_networks.EPOCHS


def test_networks_of_the_large_protocol():
    assert config_from_file(claims_large.SWEEP[0].config, []).epochs == claims_large.EPOCHS
    assert [run.name for run in claims_large.SWEEP] == [run.name for run in claims.SWEEP]
    small, large = claims.PLAN.variants(), claims_large.PLAN.variants()
    models = {name: model_of(variant.run(0)) for name, variant in large.items()}
    assert models["static"].width == models["softmax"].width == 0.25
    assert large["width0.125_static"].label == "0.5x, static"
    options = config_from_file(claims_large.SWEEP[0].config, [])
    steps = round(options.epochs * 50_000 / options.batch_size)
    assert large["dynamic"].changes["model.routing.anneal_steps"] == round(steps / 3)
    assert large["static_long"].changes["epochs"] == 2 * claims_large.EPOCHS
    assert small["static_long"].changes["epochs"] == 2 * claim_networks.EPOCHS
    for plan, module in ((small, claim_networks), (large, claims_large)):
        rate = config_from_file(plan["static"].run(0).config, []).schedule.learning_rate
        assert rate == module.RATE == 4 * plan["relu_slow"].changes["schedule.learning_rate"]
    equal = [models[name] for name in ("experts8", claim_networks.SAME_COST.name)]
    costs = [sum(cost.total for cost in analysis.layer_costs(model, 32)) for model in equal]
    assert costs[0] == pytest.approx(costs[1], rel=0.05)


def test_seeds_are_all_that_differs_between_runs_of_a_variant():
    first, second = (claim_networks.BASE.run(seed) for seed in (0, 1))
    assert set(first.arguments()) ^ set(second.arguments()) == {
        "--config.seed=0",
        "--config.seed=1",
    }


def test_the_networks_most_are_compared_with_have_seeds_of_their_own():
    names = [run.name for run in claims.SWEEP]
    assert len(names) == len(set(names))
    for variant, wanted in (("static", 6), ("experts8", 6), ("experts2", 3), ("single", 1)):
        found = {name for name in names if name.rpartition("_")[0] == variant}
        assert found == {f"{variant}_{seed}" for seed in range(wanted)}


def test_what_a_claim_compares_is_among_its_variants():
    for claim in claims.CLAIMS:
        names = {variant.name for variant in claim.variants}
        assert {name for e in claim.expectations for name in e.names} <= names
        assert {name for e in claim.expectations for name in e.overfits or ()} <= names
        assert set(claim.paper) <= names
        # What the claim quotes is what the table of the paper says.
        for wanted in claim.expectations:
            if {wanted.of, wanted.than} <= set(claim.paper) and wanted.measure == "top1":
                difference = claim.paper[wanted.of] - claim.paper[wanted.than]
                assert wanted.paper == pytest.approx(difference), wanted


def test_the_static_network_is_capable_of_little():
    params = jax.eval_shape(
        model_of(claim_networks.STATIC.run(0)).init,
        jax.random.key(0),
        np.zeros((1, 32, 32, 3), np.float32),
    )["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < 50_000
    madds = analysis.count_madds(model_of(claim_networks.STATIC.run(0)), 32)
    assert 0.2e6 < madds < 0.5e6
