"""The runs of experiments/claims.py under the protocol for an accelerator.

    python experiments/launch.py experiments/sweeps/claims_large.py --workdir=runs/large
    python experiments/report.py --runs=runs/large --out=experiments/results/large

MobileNetV1 and MSDNet are four times as wide as in the small protocol, other networks twice; epochs
are 100 for its 24 and in proportion where a claim has others; a stand-in for ResNet-50 of small
maps keeps its own strides no longer.
"""

from claims import EPOCHS
from claims import SWEEP as SMALL
from sweep import Run


def _large(run: Run) -> Run:
    changes = dict(run.overrides)
    changes.pop("model.early_strides", None)
    if "model.width" in changes:
        changes["model.width"] *= 4 if run.config.endswith(":mobilenet_v1") else 2
    for key in ("initial_channels", "growth_rate", "classifier_channels"):  # of MSDNet
        if f"model.{key}" in changes:
            changes[f"model.{key}"] *= 4
    if "epochs" in changes:
        changes["epochs"] = round(changes["epochs"] * 100 / EPOCHS)
    if "model.routing.anneal_steps" in changes:
        changes["model.routing.anneal_steps"] = 6500  # a third of the steps, as of the small one
    return Run(run.name, f"{run.config},large", changes)


SWEEP = [_large(run) for run in SMALL]
