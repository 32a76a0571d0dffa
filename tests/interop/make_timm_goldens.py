"""Writes data/timm_goldens.json: what timm's networks return for weights derived from their names.

    python tests/interop/make_timm_goldens.py

Needs the extra `parity` (torch and timm) to write; the weights need NumPy alone, so the tests know
them. Every weight is uniform, from a generator that the name of its parameter seeds. The one thing
that a name does not say is how large the values are that a batch norm gets: `spread`, their mean
square, is measured layer by layer and stored, and keeps 50 layers of any network at about 1.
"""

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("data") / "timm_goldens.json"
NAMES = (
    "tf_efficientnet_cc_b0_4e",
    "tf_efficientnet_cc_b0_8e",
    "tf_efficientnet_b0",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "semnasnet_100",
    "resnet50",
)
CLASSES = 10
IMAGES = (2, 64, 64, 3)


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of variance 1 between -sqrt(3) and sqrt(3), the same with every NumPy."""
    # Generator's methods may change between versions; the bits of PCG64 may not (NEP 19).
    bits = np.random.PCG64(zlib.crc32(key.encode())).random_raw(math.prod(shape))
    return ((bits >> np.uint64(11)) * 2.0**-52 - 1).reshape(shape) * math.sqrt(3)


def images() -> np.ndarray:
    """The images (b, h, w, 3), in float64."""
    return uniform("images", IMAGES)


def weights(
    layout: Mapping[str, tuple[int, ...]], spread: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """All arrays of a state dict in float64, but for the counters.

    Args:
      layout: shape by key.
      spread: mean square of what each batch norm gets, by its name.
    """
    return {
        key: _weight(key, shape, spread.get(key.rpartition(".")[0]))
        for key, shape in layout.items()
        if not key.endswith("num_batches_tracked")
    }


def _weight(key: str, shape: tuple[int, ...], spread: float | None) -> np.ndarray:
    drawn = uniform(key, shape)
    if key.endswith("running_mean"):
        return 0.2 * math.sqrt(spread or 1) * drawn
    if key.endswith("running_var"):
        return (spread or 1) * (1 + 0.4 * drawn)
    if key.endswith("bias"):
        return 0.3 * drawn
    if len(shape) == 1:
        return 1 + 0.3 * drawn
    # Routing logits of about 1; of experts the fan-in is not known, nor needed before batch norm.
    gain = 2 if "routing_fn" in key else 1
    return gain * drawn / math.sqrt(math.prod(shape[1:]))


def digest(layout: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    """SHA-256 of a state dict's sorted lines "key shape dtype"."""
    lines = sorted(f"{key} {list(shape)} {dtype}" for key, (shape, dtype) in layout.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _golden(name: str) -> dict[str, Any]:
    import torch
    from timm_parity import run_timm, timm

    network = timm.create_model(name, num_classes=CLASSES)
    state = network.state_dict()
    layout = {
        key: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in state.items()
    }
    shapes = {key: shape for key, (shape, _) in layout.items()}
    network = network.double().eval()

    def load(spread: Mapping[str, float]) -> None:
        counters = {key: tensor for key, tensor in state.items() if key not in found}
        tensors = {key: torch.from_numpy(array) for key, array in weights(shapes, spread).items()}
        network.load_state_dict(tensors | counters, strict=True)

    found = weights(shapes, {})
    load({})
    spread: dict[str, float] = {}

    def measure(key: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            mean_square = float(inputs[0].square().mean())
            spread[key] = float(f"{mean_square:.2g}")
            mean, var = (f"{key}.running_{which}" for which in ("mean", "var"))
            again = weights({k: shapes[k] for k in (mean, var)}, spread)
            module.running_mean.copy_(torch.from_numpy(again[mean]))
            module.running_var.copy_(torch.from_numpy(again[var]))

        return hook

    hooks = [
        module.register_forward_pre_hook(measure(key))
        for key, module in network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    run_timm(network, images())
    for hook in hooks:
        hook.remove()
    load(spread)
    logits, routing = run_timm(network, images())
    moved, _ = run_timm(network, images() + 1e-12 * uniform("perturbation", IMAGES))
    change = float(np.abs(moved - logits).max() / np.abs(logits).max())
    print(
        f"{name}: logits {logits.min():.2f} to {logits.max():.2f}; images 1e-12 off: {change:.0e}"
    )
    for block, values in routing.items():
        print(f"  {block}: {np.round(values, 2).tolist()}")
    # What rounding is amplified by has to leave the tests' 1e-9 some room.
    assert change < 1e-10, change
    return {
        "layout": digest(layout),
        "logits": logits.tolist(),
        "routing": {block: values.tolist() for block, values in routing.items()},
        "spread": spread,
    }


def main() -> None:
    """Writes the file."""
    import torch
    from timm_parity import timm

    goldens = {
        "versions": {"timm": timm.__version__, "torch": str(torch.__version__)},
        "networks": {name: _golden(name) for name in NAMES},
    }
    text = json.dumps(goldens, indent=1)
    # Numbers side by side.
    text = re.sub(r"\[\s+([^\[\]]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    FILE.write_text(text + "\n")


if __name__ == "__main__":
    main()
