"""How far our networks are from timm's, given the same weights and images.

    python tests/interop/timm_parity.py [--size=PIXELS] [NAME ...]     # a table, in Markdown

Needs the extra `parity`: torch and timm.
"""

import argparse
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch

from condconv_jax import interop
from condconv_jax.interop import timm_networks
from condconv_jax.models.network import Network


def import_timm() -> Any:
    """Returns the module timm; a torchvision built for another torch lacks two operators."""
    try:
        import timm
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm
    return timm


timm = import_timm()

BATCH = 4
# The images that are compared and others: batch norm's statistics of fewer let blocks of mixed
# kernels grow some images until float32 says nothing, in timm as here.
CALIBRATION = 48
CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Difference:
    """Largest differences, over the largest value of what they are differences of.

    Attributes:
      logits: of the network.
      routing: of each router by its number, of the weights after the sigmoid.
      varies: standard deviation over images and over experts, the lowest of all routers; 0 without.
    """

    logits: float
    routing: dict[int, float]
    varies: tuple[float, float] = (0.0, 0.0)

    @property
    def worst_routing(self) -> float:
        return max(self.routing.values(), default=0.0)


@functools.lru_cache(maxsize=4)
def make_timm(name: str, size: int = 64, seed: int = 0) -> torch.nn.Module:
    """Returns a network of timm's in evaluation, with random weights that keep it in shape.

    Convolutions are as timm draws them. Batch norm's statistics are those of one batch of random
    images, as after training; its weights and biases, and those of routers and classifier, are
    drawn such that they matter.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, num_classes=CLASSES)
        for key, module in network.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.2)
                module.momentum = 1.0  # the running average is that of the last batch
            elif key.endswith("routing_fn"):
                # Larger ones make routing and the scale of activations drive each other.
                torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
                torch.nn.init.normal_(module.bias)
            elif isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
                torch.nn.init.normal_(module.bias, std=0.2)
        with torch.inference_mode():
            network.train()(to_torch(images_of(size, CALIBRATION)))
    return network.eval()


def state_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """The arrays of its state dict."""
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


def images_of(size: int, batch: int = BATCH) -> np.ndarray:
    """Random images (b, h, w, 3) in float32, the first of which are the same in every batch."""
    drawn = np.random.default_rng(1).standard_normal((batch, size, size, 3))
    return drawn.astype(np.float32)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Images (b, h, w, c) as (b, c, h, w)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def run_timm(
    network: torch.nn.Module, images: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits and, by the block's name, routing weights."""
    routing: dict[str, np.ndarray] = {}

    def keep(block: str) -> Any:
        return lambda module, inputs, output: routing.update({block: output.sigmoid().numpy()})

    hooks = [
        module.register_forward_hook(keep(key.removesuffix(".routing_fn")))
        for key, module in network.named_modules()
        if key.endswith("routing_fn")
    ]
    with torch.inference_mode():
        logits = network(to_torch(images)).numpy()
    for hook in hooks:
        hook.remove()
    return logits, routing


def run_ours(
    model: Network, variables: Mapping[str, Any], images: np.ndarray
) -> tuple[np.ndarray, dict[int, list[np.ndarray]]]:
    """Logits and, by the layer's number, the routing weights of each of its convolutions."""
    apply = jax.jit(functools.partial(model.apply, mutable=["routing"]))
    logits, sown = apply(variables, images)
    routing = {
        int(layer.partition("_")[2]): [np.asarray(leaf) for leaf in jax.tree.leaves(leaves)]
        for layer, leaves in sown.get("routing", {}).items()
    }
    return np.asarray(logits), routing


def convert(name: str, state: Mapping[str, np.ndarray], dtype: str, size: int) -> Any:
    """Our network and timm's weights as its variables, both of a dtype."""
    model = timm_networks.make(name, num_classes=CLASSES).clone(dtype=dtype)
    images = jax.ShapeDtypeStruct((1, size, size, 3), dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)
    return model, interop.from_timm(state, model, wanted)


def compare(name: str, dtype: str, size: int = 64) -> Difference:
    """Returns how far our network is from timm's, both computing in a dtype."""
    network = make_timm(name, size)
    if dtype == "float64":
        network = make_double(name, size)
    images = images_of(size).astype(dtype)
    want, want_routing = run_timm(network, images)
    with jax.enable_x64(dtype == "float64"):
        model, variables = convert(name, state_of(network), dtype, size)
        got, routing = run_ours(model, variables, images)
    assert got.dtype == want.dtype == np.dtype(dtype)
    groups = model.layout().groups
    numbers = {f"blocks.{s}.{j}": n for s, group in enumerate(groups) for j, n in enumerate(group)}
    assert (
        {numbers[block] for block in want_routing} == routing.keys() == model.conditional_layers()
    )
    differences = {
        numbers[block]: max(_difference(ours, theirs) for ours in routing[numbers[block]])
        for block, theirs in want_routing.items()
    }
    weights = list(want_routing.values())
    varies = tuple(min((w.std(axis).mean() for w in weights), default=0.0) for axis in (0, 1))
    return Difference(_difference(got, want), differences, varies)


def make_double(name: str, size: int) -> torch.nn.Module:
    """The same network in float64."""
    network = timm.create_model(name, num_classes=CLASSES).double()
    network.load_state_dict(make_timm(name, size).state_dict())
    return network.eval()


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="timm's names (default: all)")
    parser.add_argument("--size", type=int, help="pixels (default: those it was trained at)")
    arguments = parser.parse_args()
    print(f"timm {timm.__version__}, torch {torch.__version__}, jax {jax.__version__}\n")
    print("| network | pixels | float32 | float64 | routers | routing, float32 | float64 |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for name in arguments.names or timm_networks.names():
        size = arguments.size or timm_networks.find(name).image_size
        low, high = (compare(name, dtype, size) for dtype in ("float32", "float64"))
        cells = [f"{low.logits:.1e}", f"{high.logits:.1e}", str(len(high.routing))]
        shown = [f"{d.worst_routing:.1e}" if d.routing else "" for d in (low, high)]
        print(f"| {name} | {size} | {' | '.join([*cells, *shown])} |", flush=True)


if __name__ == "__main__":
    main()
