import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import analysis, runtime
from condconv_jax.cli import analyze, main
from condconv_jax.cli.analyze import unique_names
from condconv_jax.cli.trained import load_trained
from condconv_jax.config import build, read_unlabelled
from condconv_jax.training import TrainState


@pytest.fixture(scope="session")
def static(tmp_path_factory, trained):
    """A static twin of `trained` whose parameters are all zero, with the metrics of `trained`."""
    workdir = runtime.WorkDir(tmp_path_factory.mktemp("static") / "static")
    config = json.loads((trained / "config.json").read_text())
    config["model"]["num_experts"] = 0
    task = build(config, train=False).task
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    params, model_state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    workdir.write_config(config)
    shutil.copy(trained / "metrics.jsonl", workdir.metrics)
    # What was logged after the checkpoint is of other weights.
    last = runtime.read_json_lines(workdir.metrics, "train")[-1]
    with workdir.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**last, "step": 5, "epoch": 1.25, "loss": 99.0}) + "\n")
    with runtime.Checkpoints(workdir.checkpoints) as checkpoints:
        checkpoints.save(4, TrainState(jnp.int32(4), params, model_state, ()))
    return workdir.path


def test_two_networks_make_a_report(trained, static, tmp_path, capsys):
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["analyze", f"--workdir={static}", f"--workdir={trained}", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "run against static" in printed
    assert f"report: {out / 'index.html'}" in printed
    found = json.loads((out / "summary.json").read_text())
    by_name = {network["name"]: network for network in found["networks"]}
    assert list(by_name["run"]["routing"]) == ["layer_14", "classifier"]
    assert by_name["static"]["routing"] == {}
    assert {network["examples"] for network in by_name.values()} == {20}
    page = (out / "index.html").read_text()
    assert "The images that experts of layer_14 weigh most" in page
    off = by_name["run"]["switched_off"]
    assert (off["layer"], off["examples"], len(off["top1_without"])) == ("layer_14", 20, 2)
    assert off["top1"] == pytest.approx(by_name["run"]["top1"])
    # The last evaluation of training was of the same checkpoint on the same images.
    logged = runtime.read_json_lines(trained / "metrics.jsonl", "eval")[-1]
    assert by_name["run"]["top1"] == pytest.approx(logged["top1"])
    for key in ("train_loss", "train_seconds"):
        assert by_name["static"][key] == by_name["run"][key], key
    loaded = load_trained(trained, [])
    costs = analysis.layer_costs(loaded.experiment.task.model, 28)
    assert by_name["run"]["madds"] == sum(cost.total for cost in costs)
    assert by_name["run"]["madds_of_mixing_and_routing"] == sum(
        cost.total - cost.conv for cost in costs
    )
    for name, measure in (
        ("expert_spread", analysis.expert_spread),
        ("expert_rank", analysis.expert_rank),
    ):
        assert by_name["run"][name] == pytest.approx(measure(loaded.state.params)), name


def test_what_was_learned_is_since_the_weights_that_training_started_from(trained, capsys):
    before = runtime.load_tree(trained)["params"]

    def farther(leaf):
        # Other differences between experts, and another mean: neither way round is the other.
        return leaf + np.random.default_rng(0).normal(2.0, 1.0, leaf.shape).astype(leaf.dtype)

    after = jax.tree.map(farther, before)
    found = analyze._learned(str(trained), after)
    assert found == analysis.learned_spread(before, after)
    assert "layer_14/pointwise" in found
    assert analyze._learned("", after) == {}
    assert analyze._learned(str(trained / "gone"), after) == {}
    assert "weights that training started from are gone" in capsys.readouterr().out


def test_pictures_are_found_behind_those_that_are_damaged(trained):
    loaded = load_trained(trained, [])
    found = analysis.Collected({}, np.arange(3), {}, {}, places=np.array([0, 2, 5]))
    picture = analyze._pictures(loaded, found)
    source = loaded.experiment.eval_source
    for row, place in enumerate(found.places):
        wanted = read_unlabelled(loaded.config, source[int(place)]["image"])
        np.testing.assert_array_equal(picture(row), wanted)


def test_one_network_reports_into_its_work_directory(trained, capsys):
    arguments = [f"--workdir={trained}", "--config.data.eval=test[:16]"]
    assert main(["analyze", *arguments, "--switch-off=classifier"]) == 0
    page = trained / "report" / "index.html"
    assert f"report: {page}" in capsys.readouterr().out
    text = page.read_text()
    assert "--config.data.eval=" in text
    assert "--switch-off=classifier" in text
    assert "Without one expert of classifier" in text


def test_no_layer_need_be_switched_off(trained):
    routing = {"classifier": np.ones((3, 2), np.float32)}
    found = analysis.Collected({}, np.arange(3), routing, {}, places=np.arange(3))
    assert analyze._switched_off("run", load_trained(trained, []), found, "none") is None


def test_a_layer_to_switch_off_must_route(trained, refused):
    message = refused("analyze", f"--workdir={trained}", "--switch-off=layer_13")
    assert "unknown layer of run 'layer_13'; choose one of 'classifier', 'layer_14'" in message


def test_several_networks_need_an_output_folder(trained, static, refused):
    message = refused("analyze", f"--workdir={trained}", f"--workdir={static}")
    assert message.endswith("analyze: 2 work directories and no --out; pass --out=DIR")


def test_networks_of_other_data_are_refused(trained, static, refused, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((static / "config.json").read_text())
    config["data"]["eval"] = "test[:10]"
    (other / "config.json").write_text(json.dumps(config))
    (other / "metrics.jsonl").write_bytes((static / "metrics.jsonl").read_bytes())
    (other / "checkpoints").symlink_to(static / "checkpoints")
    arguments = [f"--workdir={trained}", f"--workdir={other}", f"--out={tmp_path / 'out'}"]
    assert "data.eval is 'test[:20]' in" in refused("analyze", *arguments)


def test_a_run_without_metrics_is_refused(trained, refused, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((trained / "config.json").read_bytes())
    (copy / "checkpoints").symlink_to(trained / "checkpoints")
    assert "metrics.jsonl; training writes it" in refused("analyze", f"--workdir={copy}")


def test_no_run_at_all_is_refused(refused, tmp_path):
    assert "pass a work directory" in refused("analyze", f"--workdir={tmp_path / 'gone'}")


def test_names_are_as_short_as_they_can_be():
    assert unique_names(["/runs/demo/static", "/runs/demo/condconv"]) == ["static", "condconv"]
    assert unique_names(["/a/run", "/b/run"]) == ["a/run", "b/run"]
    with pytest.raises(ValueError, match="has one network twice; pass each once"):
        unique_names(["/a/run", "/a/run"])
