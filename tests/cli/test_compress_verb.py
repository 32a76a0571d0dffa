"""`condconv compress`: what it measures, chooses and writes."""

import contextlib
import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import runtime
from condconv_jax.cli import compressing, main
from condconv_jax.cli.compressing import Candidate, Row, choose
from condconv_jax.cli.trained import load_trained
from condconv_jax.interop.export import read_exported

EXPERTS = ("float32", "bfloat16", "int8")


@pytest.fixture(scope="module")
def verb(trained, tmp_path_factory):
    """The work directory that is chosen where any loss will do, and what was printed."""
    out = tmp_path_factory.mktemp("compressed") / "run"
    arguments = ["compress", f"--workdir={trained}", f"--out={out}", "--max-loss=100"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*arguments, "--images=20"]) == 0
    return out, printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def compressed(verb):
    return verb[0]


@pytest.fixture(scope="module")
def candidates(trained):
    loaded = load_trained(trained, [])
    return loaded, compressing.candidates_of(loaded, images=20)


def row(score, seconds, stored=0):
    return Row(Candidate(None, "float32", 0, folded=True), score, seconds, stored)


def test_the_fastest_within_the_loss_is_chosen():
    rows = [row(0.9, 5.0), row(0.895, 4.0), row(0.85, 1.0), row(0.891, 2.0), row(0.95, 3.0)]
    assert choose(rows, 0.01) is rows[3]
    assert choose(rows, 0.0) is rows[4]
    assert choose(rows, 1.0) is rows[2]
    assert choose(rows[:1], 0.0) is rows[0]
    # Of equally fast ones the smaller.
    assert choose([row(1, 1.0, 9), row(1, 1.0, 3)], 0).stored == 3


def test_the_table_and_what_is_kept_of_it(verb):
    compressed, printed = verb
    assert printed[0] == "top1 on fashion_mnist 'test[:20]'; latency of one picture"
    # As trained, then all experts and one of the two, each in three dtypes.
    names = ["as trained", *(f"{k}, {e}" for k in ("all", "mean + 1") for e in EXPERTS)]
    assert [line[2:24].strip() for line in printed[2:-1]] == names
    assert sum(line.startswith("->") for line in printed) == 1
    facts = runtime.WorkDir(compressed).read_facts()["compressed_from"]
    assert [entry["name"] for entry in facts["rows"]] == names
    assert facts["chosen"] in names
    assert facts["step"] == 4
    bytes_of = {entry["name"]: entry["bytes"] for entry in facts["rows"]}
    assert bytes_of["all, int8"] < bytes_of["all, bfloat16"] < bytes_of["all, float32"]
    assert bytes_of["mean + 1, float32"] > bytes_of["all, float32"]


def test_the_chosen_network_is_a_run(compressed, capsys, tmp_path):
    chosen = runtime.WorkDir(compressed).read_facts()["compressed_from"]
    capsys.readouterr()
    assert main(["evaluate", f"--workdir={compressed}"]) == 0
    printed = capsys.readouterr().out
    score = next(entry["score"] for entry in chosen["rows"] if entry["name"] == chosen["chosen"])
    assert f"top1       {score:.4f}" in printed
    path = tmp_path / "net.stablehlo"
    arguments = ["export", f"--workdir={compressed}", "--format=stablehlo", f"--out={path}"]
    assert main(arguments) == 0
    experts = runtime.WorkDir(compressed).read_facts()["experts"]
    assert read_exported(path).metadata["experts"] == experts


@pytest.mark.parametrize("experts", EXPERTS)
def test_every_kind_of_experts_is_read_back(experts, candidates, tmp_path):
    loaded, found = candidates
    rows = [Row(candidate, 1.0, 1.0, 0) for candidate in found]
    chosen = next(r for r in rows if r.candidate.name == f"mean + 1, {experts}")
    compressing.write(str(tmp_path / "run"), loaded, rows, chosen)
    back = load_trained(tmp_path / "run", [])
    assert back.experiment.task.model == chosen.candidate.network.task.model
    wanted = chosen.candidate.network
    images = jnp.zeros((2, 28, 28, 3), jnp.uint8)
    predict = jax.jit(wanted.task.predict)
    np.testing.assert_array_equal(
        predict(*back.state.to_evaluate(), images),
        predict(wanted.params, wanted.model_state, images),
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["folded"]
    with pytest.raises(ValueError, match="already"):
        compressing.candidates_of(back, images=20)


def test_what_is_refused(trained, candidates, refused):
    line = refused("compress", f"--workdir={trained}", "--max-loss=-1")
    assert "--max-loss is 0 or more" in line
    loaded, found = candidates
    rows = [Row(candidate, 1.0, 1.0, 0) for candidate in found]
    with pytest.raises(ValueError, match=f"{trained} holds a checkpoint of step 4; pass another"):
        compressing.write(str(trained), loaded, rows, rows[0])
    task = loaded.experiment.task
    static = dataclasses.replace(task, model=task.model.clone(num_experts=0))
    experiment = dataclasses.replace(loaded.experiment, task=static)
    with pytest.raises(ValueError, match="is of a network without experts"):
        compressing.candidates_of(dataclasses.replace(loaded, experiment=experiment), images=20)
