"""Latency of one picture against the number of routing weights kept, for claim i.

    python experiments/claim_latency.py

Of the paper's MobileNetV1 0.25x with 32 experts at 224 pixels and of the claims' own network, with
drawn weights, on which latency does not depend; on an otherwise idle machine. Writes
experiments/results/latency.json, from which experiments/report.py draws.
"""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from claim_networks import COND

from condconv_jax import config as configs
from condconv_jax import models
from condconv_jax.cli.flags import config_from_file
from condconv_jax.models.network import Network
from condconv_jax.performance import machine
from condconv_jax.performance.timing import interleave, ready
from condconv_jax.runtime.atomic import write_text

FILE = Path(__file__).parent / "results" / "latency.json"
KEPT = (1, 2, 4, 8, 16)
# In tables and figures: overrides of the protocol's config, classes, pixels.
NETWORKS = {
    "the claims' network, 32 pixels": ([], 100, 32),
    "0.25x, 224 pixels": (
        ["--config.model.width=0.25", "--config.model.early_strides=(2,2,2)"],
        1000,
        224,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="of the times")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="timings of each")
    parsed = parser.parse_args(arguments)
    run = COND[32].run(0)
    found = {}
    for name, (changes, classes, size) in NETWORKS.items():
        config = config_from_file(run.config, [*run.arguments()[1:], *changes]).to_dict()
        model = configs.make_model(config["model"], classes)
        found[name] = _latencies(model, size, parsed.rounds)
        print(name, {key: f"{1e3 * value:.2f} ms" for key, value in found[name].items()})
    about = machine.describe()
    known = {"machine": f"{about['processor']}, {about['device']}, jax {about['jax']}"}
    write_text(parsed.out, json.dumps({**known, "seconds": found}, indent=1) + "\n")
    return 0


def _latencies(model: Network, size: int, rounds: int) -> dict[str, float]:
    """Median seconds of one picture, batch norms folded: dense, static, and by k."""
    picture = jnp.asarray(np.random.default_rng(0).normal(size=(1, size, size, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), picture)
    dense, weights = models.fold_batch_norm(model, variables)
    means = models.mean_routing(model, variables, [picture])
    networks = {"all": (dense, weights)}
    for k in KEPT:
        sparse = models.sparsify(model, variables, means, k)
        networks[f"mean + {k}"] = models.fold_batch_norm(*sparse)
        routing = dataclasses.replace(dense.routing, top_k=k)
        networks[f"{k} largest"] = (dense.clone(routing=routing), weights)
    static = model.clone(num_experts=0)
    networks["static"] = models.fold_batch_norm(
        static, jax.jit(static.init)(jax.random.key(0), picture)
    )
    calls = {
        name: ready(
            jax.jit(functools.partial(network.apply, train=False)), jax.device_put(values), picture
        )
        for name, (network, values) in networks.items()
    }
    return interleave(calls, rounds=rounds)


if __name__ == "__main__":
    sys.exit(main())
