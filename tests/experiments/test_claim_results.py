"""From finished runs to the page, with networks and data that train in seconds."""

import dataclasses
import json
import shutil
import types

import claim_classes
import claim_evidence
import claim_less_routing
import claim_results
import claims
import jax
import jax.numpy as jnp
import numpy as np
import one_run
import pytest
import report
from claim import Plan

from condconv_jax import analysis, runtime


@pytest.fixture
def pictures(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for split, count in (("train", 64), ("test", 32)):
        labels = np.arange(count) % 8
        images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        np.savez(folder / f"{split}.npz", x=images, y=labels)
    return folder


@pytest.fixture
def tiny(monkeypatch, pictures, tiny_changes):
    """Makes two variants tiny; returns them."""
    known = claims.PLAN.variants()
    # Nine programs are compiled for a run's line: of a ResNet-8.
    tiny_changes |= {
        "model.blocks": 1,
        "model.begin_layer": 4,
        "model.cond_classifier": True,
        "data.path": str(pictures),
    }
    found = {
        name: dataclasses.replace(
            known[name], changes={**tiny_changes, **changes}, network="resnet_cifar"
        )
        for name, changes in (("experts2", {}), ("mixture8", {"model.method": "mixture"}))
    }
    plan = claims.PLAN
    tested = tuple(
        dataclasses.replace(
            claim, variants=tuple(found.get(variant.name, variant) for variant in claim.variants)
        )
        for claim in plan.claims
    )
    monkeypatch.setitem(report.PLANS, "small", Plan(plan.title, tested, plan.lengths))
    # Four steps teach a network nothing.
    monkeypatch.setattr(claim_evidence, "CHANCE", -1.0)
    monkeypatch.setattr(claim_results, "FIT_IMAGES", "train[:32]")
    monkeypatch.setattr(claim_less_routing, "CALIBRATION_IMAGES", 32)
    return found


def train(folder, run):
    assert one_run.run(folder / run.name, run.arguments()) == one_run.FINISHED


def copy(trained, runs, run, *, model=(), **changes):
    """A finished run as if its config had been another."""
    folder = runs / run.name
    shutil.copytree(trained, folder)
    config = json.loads((trained / "config.json").read_text()) | changes
    config["model"] |= dict(model)
    (folder / "config.json").write_text(json.dumps(config))
    record = dataclasses.asdict(one_run.read_record(trained))
    record["arguments"] = run.arguments()
    (folder / "launch.json").write_text(json.dumps(record))


# After four steps no weight is near 0 or 1, and one share would pass for the other.
NEAR = {"near_zero": 0.25, "near_one": 0.125}


def spied(monkeypatch):
    """Lists of what is collected from now on, and of the networks that are scored."""
    collected, scored = [], []
    collect, score = claim_results.collect, claim_less_routing.score
    statistics = claim_results._statistics

    def noted_collect(*arguments):
        collected.append(collect(*arguments))
        return collected[-1]

    def noted_score(trained, network):
        scored.append((network, score(trained, network)))
        return scored[-1][1]

    def told_apart(found):
        return {k: dataclasses.replace(v, **NEAR) for k, v in statistics(found).items()}

    monkeypatch.setattr(claim_results, "_statistics", told_apart)
    monkeypatch.setattr(claim_results, "collect", noted_collect)
    monkeypatch.setattr(claim_less_routing, "score", noted_score)
    return collected, scored


def test_finished_runs_become_lines_once(tmp_path, pictures, tiny, one_device, monkeypatch, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    run, of_mixture = tiny["experts2"].run(0), tiny["mixture8"].run(0)
    train(runs, run)
    collected, scored = spied(monkeypatch)
    # Of another seed, which failed, and of one that was trained with other arguments.
    failed = tiny["experts2"].run(1)
    (runs / failed.name).mkdir()
    record = one_run.Record(one_run.FAILED, tuple(failed.arguments()), 1)
    written = json.dumps(dataclasses.asdict(record))
    (runs / failed.name / "launch.json").write_text(written)
    (runs / failed.name / "launch.log").write_text("condconv train: loss is nan\n")
    (runs / "experts2_2").mkdir()
    (runs / "experts2_2" / "launch.json").write_text(written)
    arguments = [f"--runs={runs}", f"--out={out}"]
    assert report.main(arguments) == 0
    said = capsys.readouterr().out
    assert "evaluating experts2_0" in said
    assert "left out: experts2_2, trained with other settings" in said
    line, of_failed = claim_results.read_results(out / report.LINES)
    assert of_failed["failed"] == "condconv train: loss is nan"
    assert line["commit"] == one_run.read_record(runs / run.name).commit
    assert line["machine"].endswith(f", jax {jax.__version__}")
    assert 0 <= line["top1"] <= 1
    assert line["fit_loss"] > 0
    # Both ways with one of two experts, and the mean kernel alone.
    assert set(line["mean_top_k"]) == {"0", "1"}
    assert set(line["last_top_k"]) == {"1"}
    assert set(line["mean_routing"]) == {"convolutions", "classifier"}
    assert line["classes"] == 8
    assert len(line["routing"]["classifier"]["use"]) == 2
    a_line_says_what_was_measured(line, runs / run.name, *collected)
    less_routing_is_of_what_it_says(line, *scored)
    # The second time nothing is new but the mixture, and the first line is as it was. A run whose
    # protocol has changed since is none of the claim's, though its arguments are the same.
    trained = runs / run.name
    epochs = json.loads((trained / "config.json").read_text())["epochs"]
    copy(trained, runs, tiny["experts2"].run(3), epochs=epochs + 1)
    # The same weights, as a mixture is one convolution.
    copy(trained, runs, of_mixture, model={"method": "mixture"})
    assert report.main(arguments) == 0
    said = capsys.readouterr().out
    assert "evaluating mixture8_0" in said
    assert "evaluating experts2_0" not in said
    assert "left out: experts2_3, trained with other settings" in said
    first, _, mixture = claim_results.read_results(out / report.LINES)
    assert first == line
    # Two convolutions of each layer are more work than two kernels mixed into one.
    assert mixture["madds"] > line["madds"]
    assert mixture["params"] == line["params"]
    assert mixture["as_one"]["agreement"] == 1.0
    # The same sum in another order, in float32.
    assert mixture["as_one"]["difference"] < 1e-4
    page = (out / "README.md").read_text()
    assert "logits differ by" in page
    assert "![Accuracy against weights kept]" in page
    routing_at_its_mean_is_the_same_for_all_pictures(runs / run.name, pictures)
    what_is_routed_where_is_measured(runs / run.name, tmp_path / "classes.json", line["top1"])


def a_line_says_what_was_measured(line, path, tested, fitted):
    logged = runtime.read_json_lines(path / "metrics.jsonl", "eval")[-1]
    # Of the same checkpoint and pictures, but on other devices.
    for name, known in (("top1", "top1"), ("top5", "top5"), ("test_loss", "loss")):
        assert line[name] == pytest.approx(logged[known], rel=1e-4)
    assert line["top5"] > line["top1"]
    # The first training pictures.
    np.testing.assert_array_equal(fitted.labels, np.arange(32) % 8)
    for name in ("top1", "loss"):
        sums = fitted.scores[name]
        assert line[f"fit_{name}"] == pytest.approx(float(sums.total / sums.count))
    assert list(line["routing"]) == list(tested.routing)
    for layer, found in line["routing"].items():
        weights = tested.routing[layer]
        statistics = dataclasses.asdict(analysis.layer_statistics(weights, tested.labels)) | NEAR
        for name in ("specificity", "chance", "spread", "mean", "near_zero", "near_one"):
            assert found[name] == statistics[name], name
        np.testing.assert_allclose(found["use"], weights.mean(axis=0), atol=1e-4)
        shares = [np.mean((weights * 20).astype(int).clip(max=19) == i) for i in range(20)]
        np.testing.assert_allclose(found["histogram"], shares, atol=1e-4)


def less_routing_is_of_what_it_says(line, convolutions, classifier, none, mean, largest):
    routers = {
        name: [bool(np.any(params[name]["kernel"])) for params in (c.params for c, _ in parts)]
        for parts in [(convolutions, classifier, none, largest)]
        for name in convolutions[0].params
        if name.startswith("router_")
    }
    *others, last = sorted(routers, key=lambda name: int(name.removeprefix("router_")))
    # Whether they look at the picture: convolutions at their means, the classifier, all, and none.
    assert routers == {last: [True, False, False, True]} | {
        name: [False, True, False, True] for name in others
    }
    sparse = mean[0].task.model.routing
    assert (sparse.centred, sparse.top_k) == (True, 1)
    assert line["mean_routing"] == {"convolutions": convolutions[1], "classifier": classifier[1]}
    assert line["mean_top_k"] == {"0": none[1], "1": mean[1]}
    assert line["last_top_k"] == {"1": largest[1]}


def test_the_largest_weights_of_one_router_alone_are_kept():
    weights = jnp.array([[0.1, 0.4, 0.2, 0.3], [0.9, 0.1, 0.8, 0.7]])

    def routed(router, method="__call__"):
        module = types.SimpleNamespace(name=router)
        context = types.SimpleNamespace(module=module, method_name=method)
        call = lambda x, *, train: weights
        return claim_less_routing._keep_largest("router_2", 2, call, [0], {"train": False}, context)

    np.testing.assert_allclose(routed("router_2"), [[0, 0.4, 0, 0.3], [0.9, 0, 0.8, 0]])
    np.testing.assert_array_equal(routed("router_1"), weights)
    np.testing.assert_array_equal(routed("router_2", "setup"), weights)


def routing_at_its_mean_is_the_same_for_all_pictures(path, pictures):
    trained = claim_results.load_trained(path, [])
    task, state = trained.experiment.task, jax.tree.map(jnp.asarray, trained.state)
    with np.load(pictures / "train.npz") as known:
        seen = known["x"][np.linspace(0, 63, 32).round().astype(int)]
    expected = task.routing(state.params, state.model_state, seen)
    network = claim_less_routing.with_mean_routing(trained)
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    found = network.task.routing(network.params, network.model_state, images)
    assert found
    means = jax.tree.map(lambda weights: np.asarray(weights).mean(axis=0), expected)
    assert jax.tree.structure(means) == jax.tree.structure(found)
    for mean, weights in zip(jax.tree.leaves(means), jax.tree.leaves(found), strict=True):
        # Through a logit and back, in float32.
        np.testing.assert_allclose(weights, np.tile(mean, (4, 1)), atol=1e-5)
        assert np.ptp(mean) > 1e-3


def what_is_routed_where_is_measured(path, out, top1):
    assert claim_classes.main([f"--run={path}", f"--out={out}"]) == 0
    found = json.loads(out.read_text())
    assert found["run"] == path.name
    assert found["images"] == 20  # of the tiny configuration
    assert found["top1"] == pytest.approx(top1)
    classes, means = found["classes"], list(found["means"].values())
    assert classes == [str(c) for c in range(8)]
    assert [np.shape(of_layer) for of_layer in means] == [(8, 2)] * 2  # a small network
    # Each expert's favourites are of the classes whose mean weight in the last layer is largest.
    for expert, liked in enumerate(found["liked"]):
        column = np.array(means[-1])[:, expert]
        assert column[classes.index(liked[0])] == column.max()
    assert list(found["means"])[-1] == "classifier"
    assert [len(of_layer) for of_layer in found["without"].values()] == [2, 2]
