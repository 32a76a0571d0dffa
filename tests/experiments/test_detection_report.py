import json
import sys

import detection_report
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


def test_nothing_to_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["detection_report.py", f"--out={tmp_path}"])
    assert detection_report.main() == 1
    assert "no finished run" in capsys.readouterr().err
