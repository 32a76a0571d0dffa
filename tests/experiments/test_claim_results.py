"""From finished runs to the page, with networks and data that train in seconds."""

import dataclasses
import json

import claim_evidence
import claim_results
import claims
import jax
import numpy as np
import one_run
import pytest
import report
from claim import Plan


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
    found = {
        name: dataclasses.replace(
            known[name], changes={**tiny_changes, "data.path": str(pictures), **changes}
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
    monkeypatch.setattr(claim_results, "CALIBRATION_IMAGES", 32)
    return found


def train(folder, run):
    assert one_run.run(folder / run.name, run.arguments()) == one_run.FINISHED


def test_finished_runs_become_lines_once(tmp_path, tiny, one_device, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    run, of_mixture = tiny["experts2"].run(0), tiny["mixture8"].run(0)
    train(runs, run)
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
    assert "left out: experts2_2, trained with other arguments" in said
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
    # The second time nothing is new but the mixture, and the first line is as it was.
    train(runs, of_mixture)
    assert report.main(arguments) == 0
    said = capsys.readouterr().out
    assert "evaluating mixture8_0" in said
    assert "evaluating experts2_0" not in said
    first, _, mixture = claim_results.read_results(out / report.LINES)
    assert first == line
    assert mixture["as_one"]["agreement"] == 1.0
    # The same sum in another order, in float32.
    assert mixture["as_one"]["difference"] < 1e-4
    page = (out / "README.md").read_text()
    assert "logits differ by" in page
    assert "![Accuracy against weights kept]" in page
    routing_at_its_mean_is_the_same_for_all_pictures(runs / run.name)


def routing_at_its_mean_is_the_same_for_all_pictures(path):
    network = claim_results.with_mean_routing(claim_results.load_trained(path, []))
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    found = network.task.routing(network.params, network.model_state, images)
    assert found
    for weights in map(np.asarray, jax.tree.leaves(found)):
        np.testing.assert_allclose(weights, weights[:1].repeat(4, axis=0), atol=1e-6)
        assert 0 < weights.min() < weights.max() < 1
