import json
import sys
import types

import detection_report
import pytest
from PIL import Image


def line(kind, experts, seed, ap50):
    return {
        "run": f"{kind}_{seed}",
        "num_experts": experts,
        "width": 0.25,
        "seed": seed,
        "epochs": 2.0,
        "batch_size": 8,
        "train": "train",
        "split": "test",
        "madds": 81_900_000,
        "params": 380_000,
        "hours": 0.5,
        "scores": {"ap": ap50 / 2, "ap50": ap50, "ap75": 0.1, "ap50/cell": ap50, "loss": 1.0},
        "train_curve": [[0.5, 4.0], [1.0, 3.0], [1.5, 2.0], [2.0, 1.0]],
        "curve": [[1.0, 0.1, 0.2, 0.1], [2.0, 0.2, 0.3, 0.1]],
    }


def test_the_page_is_made_from_the_lines_alone(tmp_path, monkeypatch, capsys):
    lines = [
        line("condconv", 8, 0, 0.8),
        line("static", 0, 0, 0.6),
        line("static", 0, 1, 0.7),
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    monkeypatch.setattr(sys, "argv", ["detection_report.py", f"--out={tmp_path}"])
    assert detection_report.main() == 0
    page = (tmp_path / "README.md").read_text()
    # Mean and standard deviation of 60 and 70; static first.
    assert "| static | 81.9 | 0.38 | 2 | 32.5 ± 3.5 | 65.0 ± 7.1 | 10.0 ± 0.0 |" in page
    assert "| 8 experts | 81.9 | 0.38 | 1 | 40.0 | 80.0 | 10.0 | 80.0 |" in page
    assert page.index("| static |") < page.index("| 8 experts |")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A finished run of 8 steps in two epochs; returns its folder and what it was loaded with."""
    run, asked = tmp_path / "runs" / "cond_1", []
    run.mkdir(parents=True)
    (run / "done.json").touch()
    rows = [
        {"step": 4, "kind": "train", "epoch": 1.0, "loss": 3.0, "seconds": 1200.0},
        {"step": 4, "kind": "eval", "ap": 0.1, "ap50": 0.2, "ap75": 0.05},
        {"step": 8, "kind": "train", "epoch": 2.0, "loss": 1.0, "seconds": 600.0},
        {"step": 8, "kind": "eval", "ap": 0.2, "ap50": 0.4, "ap75": 0.15},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"num_experts": 8, "width": 0.25},
        "data": {"train": "train", "eval": "test"},
        **{"seed": 1, "epochs": 2.0, "batch_size": 8},
    }
    known = types.SimpleNamespace(
        config=config,
        experiment=types.SimpleNamespace(task=types.SimpleNamespace(model=None, image_size=300)),
        evaluate=lambda: {"ap": 0.3, "ap50": 0.6, "ap75": 0.2},
    )

    def load(path, overrides):
        asked.append((path, overrides))
        return known

    costs = [types.SimpleNamespace(total=10, params=1), types.SimpleNamespace(total=20, params=2)]
    monkeypatch.setattr(detection_report, "load_trained", load)
    monkeypatch.setattr(detection_report.analysis, "layer_costs", lambda *_: costs)
    monkeypatch.setattr(detection_report, "draw_pictures", lambda *_: None)
    return run, asked


def test_a_finished_run_becomes_a_line_once(trained, tmp_path, monkeypatch):
    run, asked = trained
    (tmp_path / "runs" / "under_way").mkdir()
    arguments = [f"--runs={run.parent}", f"--out={tmp_path / 'out'}", "--split=held_out"]
    monkeypatch.setattr(sys, "argv", ["detection_report.py", *arguments, "--data=elsewhere"])
    for _ in range(2):
        assert detection_report.main() == 0
    assert asked == [(run, ["--config.data.eval=held_out", "--config.data.path=elsewhere"])]
    (found,) = map(json.loads, (tmp_path / "out" / "runs.jsonl").read_text().splitlines())
    assert (found["run"], found["num_experts"], found["seed"]) == ("cond_1", 8, 1)
    assert (found["madds"], found["params"]) == (30, 3)
    assert found["hours"] == pytest.approx(0.5)
    assert found["scores"] == {"ap": 0.3, "ap50": 0.6, "ap75": 0.2}
    assert found["train_curve"] == [[1.0, 3.0], [2.0, 1.0]]
    # By epoch, of 4 steps each.
    assert found["curve"] == [[1.0, 0.1, 0.2, 0.05], [2.0, 0.2, 0.4, 0.15]]


def test_nothing_to_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["detection_report.py", f"--out={tmp_path}"])
    assert detection_report.main() == 1
    assert "no finished run" in capsys.readouterr().err
