"""Curves of the first epochs, collected from runs that are fakes of what training leaves."""

import dataclasses
import json

import claim_first_steps
import numpy as np
import one_run
import pytest
from claim_first_steps import SWEEP


@pytest.fixture
def runs(tmp_path):
    """Finished runs of the whole sweep, of two rows each: losses of 1/3, and the run's place."""
    for place, run in enumerate(SWEEP):
        folder = tmp_path / "runs" / run.name
        (folder / "checkpoints" / "10").mkdir(parents=True)
        record = one_run.Record(one_run.FINISHED, tuple(run.arguments()), 0, 10, "c0ffee")
        (folder / "launch.json").write_text(json.dumps(dataclasses.asdict(record)))
        machine = {"processor": "a processor", "device": "cpu", "jax": "0.10.2"}
        (folder / "done.json").write_text(json.dumps({"steps": 10, "machine": machine}))
        rows = [
            {"step": 5, "kind": "train", "loss": float(np.float32(1 / 3))},
            {"step": 10, "kind": "train", "loss": place},
            {"step": 10, "kind": "eval", "loss": 7.0},
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "runs"


def test_curves_are_collected_by_method_and_seed(runs, tmp_path):
    out = tmp_path / "first_steps.json"
    assert claim_first_steps.main([f"--runs={runs}", f"--out={out}"]) == 0
    found = json.loads(out.read_text())
    assert found["step"] == [5, 10]
    places = {method: [row[1] for row in rows] for method, rows in found["losses"].items()}
    assert places == {"auto": [0, 3, 6, 9], "portable": [1, 4, 7, 10], "mixture": [2, 5, 8, 11]}
    assert np.float32(found["losses"]["auto"][0][0]) == np.float32(1 / 3)
    assert (found["machines"], found["commits"]) == (["a processor, cpu, jax 0.10.2"], ["c0ffee"])


@pytest.mark.parametrize("change", [{"state": "stopped"}, {"arguments": ["--config=other.py"]}])
def test_a_run_that_is_not_of_the_sweep(runs, tmp_path, capsys, change):
    path = runs / "portable_2" / "launch.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    out = tmp_path / "first_steps.json"
    assert claim_first_steps.main([f"--runs={runs}", f"--out={out}"]) == 1
    assert "portable_2 is no finished run of this sweep" in capsys.readouterr().err
    assert not out.exists()


def test_two_programs_that_were_one_say_nothing(runs, tmp_path, capsys):
    for seed in claim_first_steps.SEEDS:
        rows = (runs / f"auto_{seed}" / "metrics.jsonl").read_text()
        (runs / f"portable_{seed}" / "metrics.jsonl").write_text(rows)
    out = tmp_path / "first_steps.json"
    assert claim_first_steps.main([f"--runs={runs}", f"--out={out}"]) == 1
    assert "were the same program" in capsys.readouterr().err


def test_programs_of_a_seed_differ_in_their_method_alone():
    for seed in claim_first_steps.SEEDS:
        of_seed = [run for run in SWEEP if run.overrides["seed"] == seed]
        settings = [
            {k: v for k, v in run.overrides.items() if k != "model.method"} for run in of_seed
        ]
        assert [settings[0]] * 3 == settings
        assert len({run.overrides["model.method"] for run in of_seed}) == 3
