"""Whole networks: training step, latency of one image, memory and compile time.

    python benchmarks/models.py --out=benchmarks/results/models

Each against its static twin, the reference method and PyTorch with timm's layer, interleaved in
one process; writes OUT.json and OUT.md, where networks that were measured before stay. Needs the
extra `bench`.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peer_mobilenet
import peers
import report
from peers import torch

from condconv_jax import models, nn, tasks, training
from condconv_jax.performance.timing import interleave, ready

CLASSES = 1000
IMAGE_MEAN, IMAGE_STD = (0.5,) * 3, (0.25,) * 3


@dataclasses.dataclass(frozen=True)
class Network:
    """A CondConv network and the sizes to run it at.

    Attributes:
      name: in the tables.
      model: of `models.create`.
      options: likewise, but for the experts.
      num_experts: of its CondConv layers.
      peer: (number of experts) -> the same network of timm's layers.
      steps: (batch, image size) of the training steps that are timed.
      memory: (batch, image size) of the one whose memory is read from the compiled program.
    """

    name: str
    model: str
    options: dict[str, Any]
    num_experts: int
    peer: Callable[[int], torch.nn.Module]
    steps: tuple[tuple[int, int], ...] = ((32, 64), (32, 224))
    memory: tuple[int, int] = (64, 224)

    def make(self, *, static: bool = False, method: str = "auto", top_k: int = 0) -> Any:
        """The network, or its static twin."""
        return models.create(
            self.model,
            num_classes=CLASSES,
            num_experts=0 if static else self.num_experts,
            routing={"top_k": top_k},
            method=method,
            **self.options,
        )


def mobilenet(width: float, num_experts: int) -> Network:
    """CondConv-MobileNetV1."""
    return Network(
        f"mobilenet_v1 {width}x, {num_experts} experts",
        "mobilenet_v1",
        {"width": width},
        num_experts,
        lambda experts: peer_mobilenet.MobileNetV1(width, experts),
    )


def efficientnet(num_experts: int) -> Network:
    """CondConv-EfficientNet-B0, timm's own in PyTorch."""

    def peer(experts: int) -> torch.nn.Module:
        name = f"tf_efficientnet_cc_b0_{experts}e" if experts else "tf_efficientnet_b0"
        return peers.import_timm().create_model(name)

    return Network(
        f"efficientnet_b0, {num_experts} experts", "efficientnet_b0", {}, num_experts, peer
    )


NETWORKS = {
    network.name: network for network in (mobilenet(0.25, 32), mobilenet(1.0, 8), efficientnet(8))
}


def compile_step(model: Any, batch: int, size: int) -> tuple[Any, Any, Any, float]:
    """Returns a compiled training step, its first state, a batch, and seconds to compile it."""
    task = tasks.Classification(model, size, IMAGE_MEAN, IMAGE_STD)
    optimizer = training.make_optimizer("sgd", 1e-3)
    key = jax.random.key(0)
    rng = np.random.default_rng(0)
    images = {
        "image": jnp.asarray(rng.integers(0, 256, (batch, size, size, 3), np.uint8)),
        "label": jnp.asarray(rng.integers(0, CLASSES, batch, np.int32)),
    }

    def step(state: Any, images: Any) -> Any:
        return training.train_step(task, optimizer, state, images, key)

    state = jax.eval_shape(lambda: training.init_state(task, optimizer, key))
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, images).compile()
    seconds = time.perf_counter() - start
    return compiled, lambda: training.init_state(task, optimizer, key), images, seconds


def running_step(model: Any, batch: int, size: int) -> Callable[[], Any]:
    """Returns a call of one training step, each from the state that the last one left."""
    compiled, init, images, _ = compile_step(model, batch, size)
    state = init()

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, images)
        jax.block_until_ready(metrics)

    return call


def training_step(network: Network, batch: int, size: int, rounds: int) -> dict[str, float]:
    """Returns the seconds of a training step."""
    peer = network.peer(network.num_experts)
    peer_static = network.peer(0)
    pixels = torch.randn(batch, 3, size, size)
    labels = torch.randint(CLASSES, (batch,))
    return interleave(
        {
            "ours": running_step(network.make(), batch, size),
            "static": running_step(network.make(static=True), batch, size),
            "torch": peer_mobilenet.training_step(peer, pixels, labels),
            "torch static": peer_mobilenet.training_step(peer_static, pixels, labels),
        },
        rounds=rounds,
        seconds=0.1,
    )


def latency(network: Network, rounds: int, size: int = 224) -> dict[str, float]:
    """Returns the seconds of a forward pass of one image, and of reading the experts once."""
    image = jnp.asarray(np.random.default_rng(0).standard_normal((1, size, size, 3), np.float32))
    model = network.make()
    variables = model.init(jax.random.key(0), image)

    def forward(model: Any, variables: Any) -> Callable[[], Any]:
        run = jax.jit(lambda variables, image: model.apply(variables, image))
        return ready(run, variables, image)

    def compressed(dtype: str) -> Any:
        return {**variables, "params": nn.compress_experts(variables["params"], dtype)}

    static = network.make(static=True)
    experts = sum(
        leaf.nbytes for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim in (3, 5)
    )
    flat = jnp.ones(experts // 4, jnp.float32)
    calls = {
        "ours": forward(model, variables),
        "ours, bfloat16 experts": forward(model, compressed("bfloat16")),
        "ours, int8 experts": forward(model, compressed("int8")),
    }
    for k in (1, 2, 4):
        calls[f"ours, top {k}"] = forward(network.make(top_k=k), variables)
    calls |= {
        "ours, int8 experts, top 2": forward(network.make(top_k=2), compressed("int8")),
        "static": forward(static, static.init(jax.random.key(0), image)),
        "reference": forward(network.make(method="reference"), variables),
        "reading the experts": ready(jax.jit(jnp.sum), flat),
    }
    peer = network.peer(network.num_experts)
    peer_static = network.peer(0)
    pixels = torch.randn(1, 3, size, size)
    calls["torch"] = peer_mobilenet.inference(peer, pixels)
    calls["torch static"] = peer_mobilenet.inference(peer_static, pixels)
    return interleave(calls, rounds=rounds, seconds=0.05)


def memory_and_compile(network: Network) -> dict[str, dict[str, float]]:
    """Returns bytes and seconds of compiling the training step, by contender.

    "temporary" is what the step needs beside its arguments and results; "state" is parameters,
    optimiser and batch norm statistics; the step updates them in place.
    """
    result = {}
    for name, static in (("ours", False), ("static", True)):
        compiled, init, _, seconds = compile_step(network.make(static=static), *network.memory)
        state = jax.eval_shape(init)
        result[name] = {
            "temporary": compiled.memory_analysis().temp_size_in_bytes,
            "state": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
            "compile": seconds,
        }
    return result


def main() -> None:
    """Runs what was asked for and writes JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--part", action="append", choices=["step", "latency", "memory"])
    arguments = parser.parse_args()
    parts = arguments.part or ["step", "latency", "memory"]
    saved = arguments.out.with_suffix(".json")
    results: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else {}
    if results.get("machine", peers.MACHINE) != peers.MACHINE:
        parser.error(
            f"{saved} is of {results['machine']}, this is {peers.MACHINE}; use another --out"
        )
    results["machine"] = peers.MACHINE
    for name in arguments.network or NETWORKS:
        network, found = NETWORKS[name], dict[str, Any]()
        if "step" in parts:
            for batch, size in network.steps:
                seconds = training_step(network, batch, size, arguments.rounds)
                found[f"training step, batch {batch}, {size} pixels"] = seconds
        if "latency" in parts:
            found["one image, 224 pixels"] = latency(network, arguments.rounds)
        if "memory" in parts:
            found["memory"] = memory_and_compile(network)
        results[name] = found
        print(json.dumps({name: found}, indent=1), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(report.of_models(results))


if __name__ == "__main__":
    main()
