"""Results of detection runs: scores on the test split, curves, and pictures with boxes.

    python experiments/detection_report.py --runs=runs/bccd --out=experiments/results/bccd

Every finished run in the folder is evaluated as it ended, without a choice among its checkpoints,
and becomes a line of OUT/runs.jsonl; a run that has a line there already is not evaluated again.
From the lines alone come OUT/README.md and OUT/curves.png: `--runs` may be left out. Pictures are
drawn of the first run of each network.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from condconv_jax import analysis, runtime
from condconv_jax import config as configs
from condconv_jax.cli.trained import load_trained

LINES = "runs.jsonl"
MEASURES = ("ap", "ap50", "ap75")
PICTURES = 4  # drawn of each network
SCORE = 0.4  # least score of a box that is drawn


def evaluate_run(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """Returns the line of a run, and the run itself.

    Args:
      path: its work directory.
      overrides: "--config.KEY=VALUE", such as the split to evaluate on.
    """
    trained = load_trained(path, overrides)
    scores, task, config = trained.evaluate(), trained.experiment.task, trained.config
    rows = runtime.read_json_lines(path / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    per_step = train[-1]["epoch"] / train[-1]["step"]
    costs = analysis.layer_costs(task.model, task.image_size)
    return {
        "run": path.name,
        "num_experts": config["model"]["num_experts"],
        "width": config["model"]["width"],
        "seed": config["seed"],
        "epochs": config["epochs"],
        "batch_size": config["batch_size"],
        "train": config["data"]["train"],
        "split": config["data"]["eval"],
        "madds": sum(cost.total for cost in costs),
        "params": sum(cost.params for cost in costs),
        "hours": sum(row["seconds"] for row in train) / 3600,
        "scores": scores,
        "train_curve": [[row["epoch"], row["loss"]] for row in train],
        "curve": [
            [row["step"] * per_step, *(row[name] for name in MEASURES)]
            for row in rows
            if row["kind"] == "eval"
        ],
    }, trained


def draw_pictures(trained: Any, out: Path) -> None:
    """Writes the first pictures of a run's evaluation split with detections and, dashed, the truth.

    Args:
      trained: from `load_trained`.
      out: PNG file, pictures beside one another.
    """
    from PIL import Image

    experiment, task = trained.experiment, trained.experiment.task
    source = experiment.eval_source
    samples = [source[index] for index in range(min(PICTURES, len(source)))]
    images = np.stack([configs.read_unlabelled(trained.config, s["image"]) for s in samples])
    found = jax.device_get(jax.jit(task.detect)(*trained.state.to_evaluate(), images))
    drawn = []
    for index, sample in enumerate(samples):
        keep = (found.labels[index] >= 0) & (found.scores[index] >= SCORE)
        drawn.append(
            analysis.draw_boxes(
                sample["image"],
                found.boxes[index][keep],
                found.labels[index][keep],
                found.scores[index][keep],
                class_names=experiment.class_names,
                truth_boxes=sample["boxes"],
                truth_labels=sample["labels"],
            )
        )
    height = min(len(image) for image in drawn)
    scaled = [
        np.asarray(Image.fromarray(i).resize((round(i.shape[1] * height / len(i)), height)))
        for i in drawn
    ]
    half = (len(scaled) + 1) // 2
    rows = [np.concatenate(scaled[k : k + half], axis=1) for k in (0, half) if scaled[k : k + half]]
    width = min(row.shape[1] for row in rows)
    Image.fromarray(np.concatenate([row[:, :width] for row in rows])).save(out)


def name_of(line: dict[str, Any]) -> str:
    """Returns what a network is called: all of its seeds have one name."""
    return f"{line['num_experts']} experts" if line["num_experts"] > 1 else "static"


def by_network(lines: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the lines of each network, the static one first."""
    ordered = sorted(lines, key=lambda line: (line["num_experts"], line["seed"]))
    found: dict[str, list[dict[str, Any]]] = {}
    for line in ordered:
        found.setdefault(name_of(line), []).append(line)
    return found


def draw_curves(lines: Sequence[dict[str, Any]], out: Path) -> None:
    """Writes training loss and AP50 by epoch, one thin line a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, ap50 = figure.subplots(1, 2)
    networks = by_network(lines)
    looks = analysis.looks(list(networks))
    for name, runs in networks.items():
        color = looks[name].color
        for index, run in enumerate(runs):
            label = name if index == 0 else None
            epochs, values = np.array(run["train_curve"]).T
            # A mean over an epoch or so: single rows are of a few batches.
            width = max(1, round(len(values) / run["epochs"]))
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            loss.plot(epochs[width - 1 :], smooth, color=color, linewidth=1.2, label=label)
            curve = np.array(run["curve"])
            ap50.plot(curve[:, 0], curve[:, 2], color=color, linewidth=1.2, label=label)
    loss.set(title="Training loss", xlabel="epoch", yscale="log")
    ap50.set(title="AP50 on the validation split", xlabel="epoch", ylim=(0, 1))
    for axes in (loss, ap50):
        axes.grid(color="#e4e6e9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(out, dpi=130)


def text(lines: Sequence[dict[str, Any]], pictures: Sequence[str]) -> str:
    """Returns the page."""
    first = lines[0]
    classes = sorted(k.removeprefix("ap50/") for k in first["scores"] if k.startswith("ap50/"))
    columns = ("ap", "ap50", "ap75", *(f"ap50/{name}" for name in classes))
    networks = by_network(lines)
    page = [
        "# Detection: static and CondConv SSD300 on MobileNetV1",
        "",
        f"Width {first['width']}, trained from nothing on {first['train']!r} for "
        f"{first['epochs']:.0f} epochs of batches of {first['batch_size']}, evaluated on "
        f"{first['split']!r} as each run ended. Made by `experiments/detection_report.py` from "
        f"[{LINES}]({LINES}), which has every score and curve.",
        "",
        "| network | MADDs (M) | parameters (M) | runs | "
        + " | ".join(c.replace("ap", "AP", 1) for c in columns)
        + " |",
        "|---|--:|--:|--:|" + "--:|" * len(columns),
    ]
    for name, runs in networks.items():
        cells = []
        for column in columns:
            values = np.array([100 * run["scores"].get(column, np.nan) for run in runs])
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        numbers = f"{runs[0]['madds'] / 1e6:.1f} | {runs[0]['params'] / 1e6:.2f} | {len(runs)}"
        page.append(f"| {name} | {numbers} | {' | '.join(cells)} |")
    page += ["", "In percent; the mean over runs and their standard deviation.", ""]
    page += ["| run | AP | AP50 | hours |", "|---|--:|--:|--:|"]
    for runs in networks.values():
        for run in runs:
            scores = run["scores"]
            page.append(
                f"| {run['run']} | {100 * scores['ap']:.1f} | {100 * scores['ap50']:.1f} | "
                f"{run['hours']:.2f} |"
            )
    page += ["", "![Training loss and AP50 by epoch](curves.png)", ""]
    for name in pictures:
        page += [f"What {name} finds (solid) and what is there (dashed):", ""]
        page += [f"![{name}]({file_name(name)})", ""]
    return "\n".join(page)


def file_name(network: str) -> str:
    """Returns the file of a network's pictures."""
    return f"{network.replace(' ', '_')}.png"


def main() -> int:
    """Evaluates what is new and writes everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", metavar="DIR", help="folder of work directories")
    parser.add_argument("--out", metavar="DIR", required=True, help="where the results go")
    parser.add_argument("--split", default="test", help="to evaluate on (default: test)")
    parser.add_argument("--data", metavar="DIR", help="where the pictures are, if not as trained")
    arguments = parser.parse_args()
    if arguments.runs and not Path(arguments.runs).is_dir():
        print(f"detection_report: no folder {arguments.runs}", file=sys.stderr)
        return 1
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / LINES
    lines = [json.loads(row) for row in file.read_text().splitlines()] if file.exists() else []
    overrides = [f"--config.data.eval={arguments.split}"]
    overrides += [f"--config.data.path={arguments.data}"] if arguments.data else []
    for path in sorted(Path(arguments.runs).iterdir()) if arguments.runs else []:
        if not (path / "done.json").exists() or path.name in {line["run"] for line in lines}:
            continue
        print(f"evaluating {path}", flush=True)
        line, trained = evaluate_run(path, overrides)
        if name_of(line) not in {name_of(other) for other in lines}:
            draw_pictures(trained, out / file_name(name_of(line)))
        lines.append(line)
        file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    if not lines:
        print(f"detection_report: no finished run in {arguments.runs}, no {file}", file=sys.stderr)
        return 1
    draw_curves(lines, out / "curves.png")
    names = [name for name in by_network(lines) if (out / file_name(name)).exists()]
    (out / "README.md").write_text(text(lines, names))
    print(f"written: {out / 'README.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
