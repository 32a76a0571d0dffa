"""The choices of `condconv compress`: how each is made, what it gives, and which to take."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax import config as configs
from condconv_jax import models, runtime, training
from condconv_jax.cli.network import Network, network_of
from condconv_jax.cli.runs import write_run
from condconv_jax.cli.trained import Trained
from condconv_jax.data import normalize
from condconv_jax.performance.timing import interleave, ready

EXPERTS = ("float32", "bfloat16", "int8")
BATCH_SIZE = 64  # of the pictures that routing weights are averaged over


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to run the network.

    Attributes:
      network: it.
      experts: their dtype.
      top_k: deviations that are mixed; 0 for all experts.
      folded: whether batch norms are folded.
    """

    network: Network
    experts: str
    top_k: int
    folded: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        kept = f"mean + {self.top_k}" if self.top_k else "all"
        return f"{kept}, {self.experts}" if self.folded else "as trained"


@dataclasses.dataclass(frozen=True)
class Row:
    """What a candidate gives.

    Attributes:
      candidate: it.
      score: the task's best metric.
      seconds: of one picture, median.
      stored: bytes of all parameters.
    """

    candidate: Candidate
    score: float
    seconds: float
    stored: int


def candidates_of(trained: Trained, *, images: int) -> list[Candidate]:
    """Returns the network as it was trained, and the ways to make it smaller.

    Args:
      trained: a CondConv network, dense and not compressed.
      images: training pictures to average the routing weights over.

    Raises:
      ValueError: if it has no experts, or is compressed or sparse already.
    """
    task = trained.experiment.task
    network = network_of(trained.config, task, trained.state)
    variables = {"params": network.params, **network.model_state}
    if not getattr(task.model, "num_experts", 0) or not task.model.conditional_layers():
        raise ValueError(f"compress: {trained.workdir.path} is of a network without experts")
    if trained.workdir.read_facts().get("experts", "float32") != "float32":
        raise ValueError(f"compress: the experts of {trained.workdir.path} are compressed already")
    found = [Candidate(network, "float32", 0, folded=False)]
    means = models.mean_routing(task.model, variables, _calibration(trained, images))
    for top_k in (0, *_counts(task.model.num_experts)):
        sparse = network
        if top_k:
            model, values = models.sparsify(task.model, variables, means, top_k)
            sparse = network.of(model, values)
        folded = sparse.folded()
        found += [Candidate(folded.compressed(e), e, top_k, folded=True) for e in EXPERTS]
    return found


def _counts(num_experts: int) -> list[int]:
    """Half of the experts, a quarter, ..., 1."""
    counts = []
    while num_experts > 1:
        num_experts //= 2
        counts.append(num_experts)
    return counts


def _calibration(trained: Trained, number: int) -> list[jax.Array]:
    """Normalised training pictures, evenly spread over the set, in batches."""
    config, task = trained.config, trained.experiment.task
    source = configs.open_source(config, config["data"]["train"])
    indices = np.linspace(0, len(source) - 1, min(number, len(source))).round().astype(int)
    pictures = [configs.read_unlabelled(config, source[int(i)]["image"]) for i in indices]
    # Whole batches, so that one program is compiled; of few pictures one smaller one.
    size = min(BATCH_SIZE, len(pictures))
    whole = len(pictures) // size * size
    stacked = np.stack(pictures[:whole]).reshape(-1, size, *pictures[0].shape)
    return [jnp.asarray(normalize(batch, task.mean, task.std)) for batch in stacked]


def measure(trained: Trained, candidates: Sequence[Candidate]) -> list[Row]:
    """Returns what each candidate gives: its score, and its latency beside all others'."""
    mesh = runtime.make_mesh()
    size = trained.experiment.task.image_size
    picture = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8))
    scores, calls = [], {}
    for candidate in candidates:
        network = candidate.network
        scores.append(score(trained, network, mesh))
        task = network.task
        method = jax.jit(task.predict if hasattr(task, "predict") else task.detect)
        weights = jax.device_put((network.params, network.model_state))
        calls[candidate.name] = ready(method, *weights, picture)
    seconds = interleave(calls, rounds=15)
    return [
        Row(candidate, value, seconds[candidate.name], _bytes(candidate.network.params))
        for candidate, value in zip(candidates, scores, strict=True)
    ]


def score(trained: Trained, network: Network, mesh: Any) -> float:
    """Returns the task's best metric of a network on the run's evaluation data."""
    task = network.task
    with jax.set_mesh(mesh):
        state = training.TrainState(trained.state.step, network.params, network.model_state, ())
        state = jax.device_put(state, runtime.replicated(mesh))
        eval_fn = training.make_eval_fn(task, mesh)
        scores = training.evaluate(task, eval_fn, state, trained.experiment.eval_batches(), mesh)
    return float(scores[task.best_metric])


def _bytes(params: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def choose(rows: Sequence[Row], max_loss: float) -> Row:
    """Returns the fastest of those that lose no more than `max_loss` against the first."""
    return min((row for row in rows if rows[0].score - row.score <= max_loss), key=_time)


def _time(row: Row) -> tuple[float, int]:
    return row.seconds, row.stored


def table(rows: Sequence[Row], chosen: Row) -> str:
    """Returns the rows as text; the one that was chosen has an arrow."""
    metric = rows[0].candidate.network.task.best_metric
    lines = [f"  {'':<22} {metric:>8} {'loss':>7} {'ms':>8} {'speed':>7} {'MB':>8}"]
    for row in rows:
        mark = "->" if row is chosen else "  "
        lines.append(
            f"{mark}{row.candidate.name:<22} {row.score:>8.4f} {rows[0].score - row.score:>7.4f} "
            f"{1e3 * row.seconds:>8.2f} {rows[0].seconds / row.seconds:>6.2f}x "
            f"{row.stored / 1e6:>8.2f}"
        )
    return "\n".join(lines)


def write(path: str, trained: Trained, rows: Sequence[Row], chosen: Row) -> None:
    """Writes the chosen network as a work directory, with all rows beside the facts."""
    candidate = chosen.candidate
    config = configs.completed(trained.config).to_dict()
    model = candidate.network.task.model
    config["model"]["folded"] = bool(getattr(model, "folded", False))
    config["model"]["routing"] |= {"centred": bool(candidate.top_k), "top_k": candidate.top_k}
    facts = {
        **trained.workdir.read_facts(),
        "experts": candidate.experts,
        "compressed_from": {
            "step": int(trained.state.step),
            "chosen": candidate.name,
            "rows": [
                {
                    "name": row.candidate.name,
                    "score": row.score,
                    "milliseconds": 1e3 * row.seconds,
                    "bytes": row.stored,
                }
                for row in rows
            ],
        },
    }
    variables = {"params": candidate.network.params, **candidate.network.model_state}
    write_run("compress", path, config, jax.device_get(variables), facts)
