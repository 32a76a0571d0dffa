"""`condconv compress`: what it measures, chooses and writes."""

import contextlib
import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import config as configs
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
    # Of those about equally fast the smaller.
    assert choose([row(1, 1.0, 9), row(1, 1.04, 3), row(1, 1.06, 1)], 0).stored == 3


@pytest.mark.parametrize(
    ("given", "chosen"), [([], 0), (["--max-loss=2"], 1), (["--max-loss=5"], 2)]
)
def test_what_may_be_lost_is_in_hundredths(trained, candidates, monkeypatch, capsys, given, chosen):
    found = candidates[1][:3]
    scores_and_seconds = ((0.9, 4.0), (0.885, 2.0), (0.855, 1.0))
    rows = [Row(c, *numbers, 0) for c, numbers in zip(found, scores_and_seconds, strict=True)]
    monkeypatch.setattr(compressing, "candidates_of", lambda *_, **__: found)
    monkeypatch.setattr(compressing, "measure", lambda *_: rows)
    capsys.readouterr()
    assert main(["compress", f"--workdir={trained}", *given]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("->")]
    assert line[2:24].strip() == found[chosen].name


def test_each_row_is_of_its_own_network(candidates, monkeypatch):
    loaded, found = candidates
    place = {id(one.network): number for number, one in enumerate(found)}
    monkeypatch.setattr(compressing, "score", lambda _, network: place[id(network)] / 10)
    monkeypatch.setattr(
        compressing, "_prepared", lambda network, *_: (place[id(network)], 100 + place[id(network)])
    )
    monkeypatch.setattr(
        compressing, "interleave", lambda calls, **_: {name: 7 + n for name, n in calls.items()}
    )
    for number, one in enumerate(compressing.measure(loaded, found)):
        assert one.candidate is found[number]
        assert (one.score, one.seconds, one.stored) == (number / 10, 7 + number, 100 + number)


def test_routing_is_averaged_over_training_pictures_as_the_network_sees_them(candidates):
    loaded, _ = candidates
    task = loaded.experiment.task
    (found,) = compressing.calibration_pictures(loaded, 5)
    source = configs.open_source(loaded.config, "train[:64]")
    # Evenly from the first to the last.
    pictures = [configs.read_unlabelled(loaded.config, source[i]["image"]) for i in (0, 16, 32, 47)]
    pictures.append(configs.read_unlabelled(loaded.config, source[63]["image"]))
    wanted = (np.stack(pictures) / 255 - np.array(task.mean)) / np.array(task.std)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


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
    compressing.write(str(tmp_path / "run"), loaded, rows, chosen, loaded.config)
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
    if experts == "float32":
        # It can be rounded still; its routing is sparse already.
        names = [candidate.name for candidate in compressing.candidates_of(back, images=20)]
        assert names == ["as trained", *(f"all, {each}" for each in EXPERTS)]
        return
    with pytest.raises(ValueError, match="are compressed already"):
        compressing.candidates_of(back, images=20)


def test_pictures_that_were_trained_on_are_named(trained, monkeypatch, capsys):
    def stop(*_, **__):
        raise ValueError("this far")

    monkeypatch.setattr(compressing, "candidates_of", stop)
    capsys.readouterr()
    for split, named in (("train[:8]", True), ("test[:8]", False)):
        options = ["--config.data.train=train", f"--validation={split}"]
        assert main(["compress", f"--workdir={trained}", *options]) == 1
        assert (f"note: {split} was trained on, too" in capsys.readouterr().out) == named


def test_what_is_refused(trained, candidates, refused, monkeypatch):
    line = refused("compress", f"--workdir={trained}", "--max-loss=-1")
    assert "--max-loss is 0 or more" in line
    # Before anything is measured.
    monkeypatch.setattr(compressing, "measure", None)
    line = refused("compress", f"--workdir={trained}", f"--out={trained}")
    assert f"{trained} holds a checkpoint of step 4; pass another directory" in line
    loaded, _ = candidates
    task = loaded.experiment.task
    static = dataclasses.replace(task, model=task.model.clone(num_experts=0))
    experiment = dataclasses.replace(loaded.experiment, task=static)
    with pytest.raises(ValueError, match="is of a network without CondConv"):
        compressing.candidates_of(dataclasses.replace(loaded, experiment=experiment), images=20)


@pytest.mark.slow  # compiles another network
def test_the_split_that_it_is_chosen_by_is_not_that_of_the_new_run(trained, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["compress", f"--workdir={trained}", f"--out={out}", "--images=8"]
    # Top-k in training, which leaves no mean kernel to be found.
    options = ["--validation=train[:16]", "--config.model.routing.top_k=1", "--max-loss=100"]
    assert main([*arguments, *options]) == 0
    printed = capsys.readouterr().out
    assert "note: no sparse routing: it is of dense CondConv" in printed
    assert "top1 on fashion_mnist 'train[:16]'" in printed
    assert "mean +" not in printed
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["eval"] == "test[:20]"
    assert config["model"]["routing"]["top_k"] == 1


@pytest.mark.slow  # exports a program for each row
def test_programs_of_a_format_are_timed(trained, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["compress", f"--workdir={trained}", f"--out={out}", "--format=stablehlo"]
    assert main([*arguments, "--max-loss=100"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("latency of one picture as stablehlo")
    names = ["as trained", *(f"all, {experts}" for experts in EXPERTS)]
    assert [line[2:24].strip() for line in printed[2:-1]] == names
    rows = runtime.WorkDir(out).read_facts()["compressed_from"]["rows"]
    stored = {row["name"]: row["bytes"] for row in rows}
    # Of the files, in which weights are by far the most.
    assert stored["all, int8"] < stored["all, bfloat16"] < stored["all, float32"]


def test_what_a_format_cannot_hold_is_left_out_but_for_the_first(candidates, monkeypatch, capsys):
    loaded, found = candidates
    prepared = compressing._prepared

    def refuse(at):
        def prepare(network, *arguments):
            if network is found[at].network:
                raise ValueError("it cannot be written")
            return prepared(network, *arguments)

        monkeypatch.setattr(compressing, "_prepared", prepare)

    refuse(1)
    assert [row.candidate for row in compressing.measure(loaded, found[:2])] == found[:1]
    assert "all, float32: left out: it cannot be written" in capsys.readouterr().out
    refuse(0)
    with pytest.raises(ValueError, match="it cannot be written"):
        compressing.measure(loaded, found[:2])
