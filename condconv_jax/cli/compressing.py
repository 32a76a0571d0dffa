"""The choices of `condconv compress`: how each is made, what it gives, and which to take."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax import config as configs
from condconv_jax import models, training
from condconv_jax.cli.exporting import make_program, make_reference
from condconv_jax.cli.network import BoundNetwork, network_of
from condconv_jax.cli.runs import write_run
from condconv_jax.cli.trained import Trained
from condconv_jax.data import normalize
from condconv_jax.interop.export import export_program, find_format, read_exported
from condconv_jax.performance.timing import interleave, ready

EXPERTS = ("float32", "bfloat16", "int8")
SAME_TIME = 1.05  # two times whose ratio is less are the same
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

    network: BoundNetwork
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
      stored: bytes of all parameters, or of the file of an exported program.
    """

    candidate: Candidate
    score: float
    seconds: float
    stored: int


def candidates_of(trained: Trained, *, images: int, sparse: bool = True) -> list[Candidate]:
    """Returns the network as it was trained, and the ways to make it smaller.

    Args:
      trained: a CondConv network that is not compressed.
      images: training pictures to average the routing weights over.
      sparse: whether to make its routing sparse too, if `models.sparsifies` it.

    Raises:
      ValueError: if it has no CondConv layers, or compressed ones.
    """
    task = trained.experiment.task
    network = network_of(trained.config, task, trained.state)
    variables = {"params": network.params, **network.model_state}
    if not task.model.conditional_layers() or task.model.cond_layer != "condconv":
        raise ValueError(f"compress: {trained.workdir.path} is of a network without CondConv")
    if trained.workdir.read_facts().get("experts", "float32") != "float32":
        raise ValueError(f"compress: the experts of {trained.workdir.path} are compressed already")
    found = [Candidate(network, "float32", 0, folded=False)]
    counts = [0]
    if sparse and models.sparsifies(task.model):
        counts += _counts(task.model.num_experts)
        means = models.mean_routing(task.model, variables, calibration_pictures(trained, images))
    for top_k in counts:
        kept = network
        if top_k:
            kept = network.of(*models.sparsify(task.model, variables, means, top_k))
        folded = kept.folded()
        found += [Candidate(folded.compressed(e), e, top_k, folded=True) for e in EXPERTS]
    return found


def _counts(num_experts: int) -> list[int]:
    """Half of the experts, a quarter, ..., 1."""
    counts = []
    while num_experts > 1:
        num_experts //= 2
        counts.append(num_experts)
    return counts


def calibration_pictures(trained: Trained, number: int) -> list[jax.Array]:
    """Returns normalised training pictures, evenly spread over the set, in batches."""
    config, task = trained.config, trained.experiment.task
    source = configs.open_source(config, config["data"]["train"])
    indices = np.linspace(0, len(source) - 1, min(number, len(source))).round().astype(int)
    pictures = [configs.read_unlabelled(config, source[int(i)]["image"]) for i in indices]
    # Whole batches, so that one program is compiled; of few pictures one smaller one.
    size = min(BATCH_SIZE, len(pictures))
    whole = len(pictures) // size * size
    stacked = np.stack(pictures[:whole]).reshape(-1, size, *pictures[0].shape)
    return [jnp.asarray(normalize(batch, task.mean, task.std)) for batch in stacked]


def measure(
    trained: Trained, candidates: Sequence[Candidate], form: str | None = None
) -> list[Row]:
    """Returns what each candidate gives: its score, and its latency beside all others'.

    Args:
      trained: for the pictures that it is evaluated on.
      candidates: of `candidates_of`.
      form: of `interop.export.FORMATS`, whose programs are timed then; a candidate that cannot be
        written so is left out, and said to be. None for this package.

    Raises:
      ValueError: if the first, with which the others are compared, cannot be written so.
    """
    size = trained.experiment.task.image_size
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    timed = []
    with tempfile.TemporaryDirectory() as folder:
        for candidate in candidates:
            try:
                call, stored = _prepared(candidate.network, picture, form, Path(folder))
            except ValueError as error:
                if candidate is candidates[0]:  # what all others are compared with
                    raise
                print(f"{candidate.name}: left out: {error}")
                continue
            timed.append((candidate, score(trained, candidate.network), stored, call))
        seconds = interleave({one.name: call for one, _, _, call in timed}, rounds=15)
    return [Row(one, value, seconds[one.name], stored) for one, value, stored, _ in timed]


def _prepared(
    network: BoundNetwork, picture: np.ndarray, form: str | None, folder: Path
) -> tuple[Callable[[], Any], int]:
    """A call of the network that waits for its result, and the bytes that it takes."""
    if form is None:
        task = network.task
        method = jax.jit(task.predict if hasattr(task, "predict") else task.detect)
        weights = jax.device_put((network.params, network.model_state))
        return ready(method, *weights, jnp.asarray(picture)), _bytes(network.params)
    file = folder / f"{len(list(folder.iterdir()))}{find_format(form).suffix}"
    single = network.in_float32().with_method(find_format(form).method)
    export_program(make_program(single, {}), make_reference(network.in_float32()), form, file)
    exported = read_exported(file)
    return lambda: exported.run(picture), file.stat().st_size


def score(trained: Trained, network: BoundNetwork) -> float:
    """Returns the task's best metric of a network on the run's evaluation data."""
    state = training.TrainState(trained.state.step, network.params, network.model_state, ())
    return float(trained.evaluate(network.task, state)[network.task.best_metric])


def _bytes(params: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def choose(rows: Sequence[Row], max_loss: float) -> Row:
    """Returns the fastest of those that lose no more than `max_loss` against the first.

    Of those that are as fast but for SAME_TIME, the smallest.
    """
    fit = [row for row in rows if rows[0].score - row.score <= max_loss]
    fastest = min(row.seconds for row in fit)
    return min((row for row in fit if row.seconds <= SAME_TIME * fastest), key=_size)


def _size(row: Row) -> tuple[int, float]:
    return row.stored, row.seconds


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


def write(
    path: str, trained: Trained, rows: Sequence[Row], chosen: Row, config: Mapping[str, Any]
) -> None:
    """Writes the chosen network as a work directory, with all rows beside the facts.

    Args:
      path: of the directory.
      trained: what was compressed.
      rows: of `measure`.
      chosen: one of them.
      config: of the run, without what was changed for the choice alone.
    """
    candidate = chosen.candidate
    config = configs.completed(config).to_dict()
    model = candidate.network.task.model
    config["model"]["folded"] = bool(getattr(model, "folded", False))
    config["model"]["routing"] |= {
        "centred": model.routing.centred,
        "top_k": model.routing.top_k,
    }
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
