"""How a trained network of the claims routes classes, and what each expert is worth, for claim i.

    python experiments/claim_classes.py --run=runs/claims/experts32_2

From the folder where it was trained, for the pictures. Writes experiments/results/classes.json,
which experiments/report.py reads: names of classes and means of weights, no picture. `condconv
analyze` shows the pictures that experts like, of any run.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import one_run
from claim_results import collect

from condconv_jax import analysis, runtime
from condconv_jax.analysis.routing_figures import means_at_depths
from condconv_jax.cli.trained import Trained, load_trained
from condconv_jax.runtime.atomic import write_text

FILE = Path(__file__).parent / "results" / "classes.json"
DIGITS = 3  # of mean weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="its work directory")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="of the classes")
    parsed = parser.parse_args(arguments)
    try:
        found = routed_classes(parsed.run)
    except (FileNotFoundError, ValueError) as error:
        print(f"claim_classes.py: {error}", file=sys.stderr)
        return 1
    write_text(parsed.out, json.dumps(found) + "\n")
    print(f"written: {parsed.out}")
    return 0


def routed_classes(path: Path) -> dict[str, Any]:
    """Returns what a finished run's network does with classes.

    Args:
      path: work directory of a run with experts, sigmoid routing and a CondConv classifier.

    Returns:
      {"run": its name, "commit": of its code, "images": evaluated, "classes": names of those drawn,
      "means": layer -> mean weights of these classes (k, e), "liked": for each expert of the last
      layer names of the classes that weigh it most, "top1": accuracy, "without": layer -> accuracy
      without each of its experts (e,), of the last convolution and the last layer}.

    Raises:
      FileNotFoundError: if it has no checkpoint.
      ValueError: if it has no experts.
    """
    trained = load_trained(path, [])
    task = trained.experiment.task
    costs = analysis.layer_costs(task.model, task.image_size)
    found = collect(trained, [cost.name for cost in costs])
    if not found.routing:
        raise ValueError(f"{path} is a run of a static network; pass one with experts")
    names = trained.experiment.class_names
    means, classes = means_at_depths(found.routing, found.labels, len(names))
    last = list(found.routing)[-1]
    by_class = analysis.mean_by_class(found.routing[last], found.labels, len(names))
    without = {layer: _without(trained, found, layer) for layer in list(found.routing)[-2:]}
    return {
        "run": path.name,
        "commit": one_run.read_record(path).commit,
        "images": len(found.labels),
        "classes": [names[c] for c in classes],
        "means": {
            layer: np.round(np.asarray(of_layer, np.float64), DIGITS).tolist()
            for layer, of_layer in means.items()
        },
        "liked": [[names[c] for c in of_one] for of_one in analysis.top_classes(by_class)],
        "top1": without[last].top1,
        "without": {layer: off.without.tolist() for layer, off in without.items()},
    }


def _without(trained: Trained, found: analysis.Collected, layer: str) -> analysis.SwitchedOff:
    return analysis.evaluate_without(
        trained.experiment.task,
        trained.state.params,
        trained.state.model_state,
        trained.experiment.eval_batches(),
        layer=layer,
        modules=found.modules[layer],
        mesh=runtime.make_mesh(),
    )


if __name__ == "__main__":
    sys.exit(main())
