"""`condconv evaluate --experts`: a trained network with its experts rounded."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from condconv_jax import runtime, training
from condconv_jax.cli import main
from condconv_jax.config import build
from condconv_jax.training import TrainState


@pytest.fixture
def evaluated(monkeypatch):
    """The parameters of each evaluation."""
    seen = []
    evaluate = training.evaluate

    def spy(task, eval_fn, state, batches, mesh):
        seen.append(state.params)
        return evaluate(task, eval_fn, state, batches, mesh)

    monkeypatch.setattr(training, "evaluate", spy)
    return seen


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 0
    return {name: float(value) for name, value in
            re.findall(r"^  (\w+) +([\d.]+)$", capsys.readouterr().out, re.MULTILINE)}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_experts_are_rounded_and_the_rest_is_not(dtype, trained, evaluated, capsys):
    scores = printed(capsys, f"--workdir={trained}", f"--experts={dtype}")
    logged = runtime.read_json_lines(trained / "metrics.jsonl", "eval")[-1]
    assert scores["examples"] == 20
    # Twenty images: within two answers, and near in what varies smoothly.
    assert scores["loss"] == pytest.approx(logged["loss"], rel=0.02)
    assert scores["top1"] == pytest.approx(logged["top1"], abs=0.1)
    (params,) = evaluated
    for layer in (params["layer_14"]["depthwise"], params["classifier"]):
        assert layer["kernel"].dtype == dtype
        assert ("kernel_scale" in layer) is (dtype == "int8")
    assert params["layer_1"]["kernel"].dtype == jnp.float32
    assert params["router_15"]["kernel"].dtype == jnp.float32
    # What is on disk is as it was.
    kernel = runtime.load_tree(trained)["params"]["classifier"]["kernel"]
    assert kernel.dtype == jnp.float32


def test_a_static_network_has_no_experts_to_round(trained, refused, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    config["model"]["num_experts"] = 0
    workdir = runtime.WorkDir(tmp_path / "static")
    workdir.write_config(config)
    shapes = jax.eval_shape(build(config, train=False).task.init, jax.random.key(0))
    params, model_state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    with runtime.Checkpoints(workdir.checkpoints) as checkpoints:
        checkpoints.save(4, TrainState(jnp.int32(4), params, model_state, ()))
    line = refused("evaluate", f"--workdir={workdir.path}", "--experts=int8")
    assert "no expert kernels in params; a static model has none" in line


def test_unknown_experts(trained, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", f"--workdir={trained}", "--experts=int4"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--experts: invalid choice: 'int4' (choose from" in line
    assert "int8" in line
