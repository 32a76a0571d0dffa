"""SSD300 on MobileNetV1 0.25x for BCCD, static and with 8 experts, three seeds of each.

    python experiments/launch.py experiments/sweeps/bccd_ssd.py --workdir=runs/bccd
    python experiments/detection_report.py --runs=runs/bccd --out=experiments/results/bccd

The first from a folder where `data/bccd` holds the pictures (configs/bccd/ssd300_mobilenet_v1.py).
"""

from sweep import Run

CONFIG = "configs/bccd/ssd300_mobilenet_v1.py"

SWEEP = [
    Run(f"{kind}_{seed}", f"{CONFIG}:{kind}", {"seed": seed})
    for seed in (0, 1, 2)
    for kind in ("static", "condconv")
]
