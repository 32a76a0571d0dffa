"""MobileNetV1 0.25x with 1 to 32 experts a layer, on the embedded Fashion-MNIST images.

    python experiments/launch.py experiments/sweeps/fashion_mnist_experts.py --workdir=runs/experts
    condconv analyze --workdir=runs/experts/experts1 --workdir=runs/experts/experts8 --out=runs

One expert is the static network. Source: Yang et al. 2019, arXiv 1904.04971, section 4, which
varies the number of experts of MobileNetV1 on ImageNet.
"""

from sweep import Run

CONFIG = "configs/fashion_mnist/mobilenet_v1.py:condconv"

SWEEP = [Run(f"experts{n}", CONFIG, {"model.num_experts": n}) for n in (1, 2, 4, 8, 16, 32)]
