"""The table of a report: what each network reaches and costs, and how two of them differ."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from condconv_jax.analysis.curves import Curves
from condconv_jax.analysis.favourites import Favourites
from condconv_jax.analysis.layer_statistics import LayerStatistics, layer_statistics
from condconv_jax.analysis.switching_off import SwitchedOff
from condconv_jax.models import describe
from condconv_jax.runtime import Sum, flatten_config

NONE = "–"  # noqa: RUF001  an en dash stands for a number that there is not


@dataclasses.dataclass(frozen=True)
class AnalysedNetwork:
    """A trained network and all that a report says about it.

    Attributes:
      name: in tables and figures, unique in a report.
      workdir: where it comes from, as the user wrote it.
      step: training steps it has done.
      config: of its run.
      madds: multiply-adds of one image.
      overhead: those of them that mix experts and compute routing weights.
      params: number of parameters.
      scores: sum and count of each metric over the evaluation set.
      curves: of its training; None if it was not trained here (converted weights).
      labels: class of each evaluation image (n,).
      routing: layer -> routing weights (n, e), in the order of the forward pass.
      modules: layer -> the modules that mix by its weights; a layer that it lacks is its own.
      spread: module -> `expert_spread`.
      rank: module -> `expert_rank`.
      learned: module -> `learned_spread`, where training started from other weights.
      favourites: layer -> the images that its experts weigh most, where they were looked for.
      switched_off: accuracies without each expert of one layer, where they were measured.
    """

    name: str
    workdir: str
    step: int
    config: Mapping[str, Any]
    madds: int
    overhead: int
    params: int
    scores: Mapping[str, Sum]
    curves: Curves | None
    labels: np.ndarray
    routing: Mapping[str, np.ndarray]
    modules: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    spread: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rank: Mapping[str, float] = dataclasses.field(default_factory=dict)
    learned: Mapping[str, float] = dataclasses.field(default_factory=dict)
    favourites: Mapping[str, Favourites] = dataclasses.field(default_factory=dict)
    switched_off: SwitchedOff | None = None

    @property
    def kind(self) -> str:
        """What is conditional in it, in words."""
        return describe(self.config["model"])

    @property
    def examples(self) -> int:
        """Number of evaluation images."""
        return int(self.scores["top1"].count)

    def score(self, metric: str) -> float | None:
        """Mean of a metric over the evaluation set; None if the task does not measure it."""
        found = self.scores.get(metric)
        return None if found is None else float(found.total / found.count)

    def statistics(self) -> dict[str, LayerStatistics]:
        """Statistics of each layer's routing."""
        return {
            layer: layer_statistics(weights, self.labels) for layer, weights in self.routing.items()
        }


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
      header: with the unit.
      value: of a network; None where there is none.
      show: the value as text.
      compare: text of (the second's value, the first's).
    """

    header: str
    value: Callable[[AnalysedNetwork], float | None]
    show: Callable[[float], str]
    compare: Callable[[float, float], str]


def _trained(name: str) -> Callable[[AnalysedNetwork], float | None]:
    """A number of a network's training; None where it was not trained here."""
    return lambda network: None if network.curves is None else getattr(network.curves, name)


def _points(new: float, old: float) -> str:
    return f"{signed(100 * (new - old), 2)} points"


def _percent(new: float, old: float) -> str:
    return f"{signed(100 * (new / old - 1), 1)} %" if old else NONE


def _times(new: float, old: float) -> str:
    return f"{new / old:.2f}-fold" if old else NONE


def signed(value: float, digits: int) -> str:
    """Returns a number with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")  # noqa: RUF001  a minus sign


def _count(value: float) -> str:
    """A number of operations or parameters with three or four digits and a unit."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 1000 else 0}f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Returns seconds as a readable text."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


COLUMNS = (
    Column("top-1", lambda n: n.score("top1"), lambda v: f"{100 * v:.2f} %", _points),
    Column("top-5", lambda n: n.score("top5"), lambda v: f"{100 * v:.2f} %", _points),
    Column("MADDs", lambda n: n.madds, _count, _percent),
    Column("parameters", lambda n: n.params, _count, _times),
    Column("training time", _trained("seconds"), duration, _times),
    Column("images/s", _trained("images_per_second"), lambda v: f"{v:.0f}", _times),
    Column(
        "train loss",
        _trained("final_loss"),
        lambda v: f"{v:.3f}",
        lambda new, old: signed(new - old, 3),
    ),
)


def table(networks: Sequence[AnalysedNetwork]) -> list[list[str]]:
    """Returns the table as texts: a header, a row per network, and for two their difference."""
    rows = [["network", "experts", *(column.header for column in COLUMNS)]]
    for network in networks:
        cells = [(column, column.value(network)) for column in COLUMNS]
        shown = [NONE if value is None else column.show(value) for column, value in cells]
        rows.append([network.name, network.kind.removesuffix(" experts"), *shown])
    if (pair := compared(networks)) is not None:
        old, new = pair
        shown = []
        for column in COLUMNS:
            a, b = column.value(new), column.value(old)
            shown.append(NONE if a is None or b is None else column.compare(a, b))
        rows.append([f"{new.name} against {old.name}", "", *shown])
    return rows


def compared(networks: Sequence[AnalysedNetwork]) -> tuple[AnalysedNetwork, AnalysedNetwork] | None:
    """Returns (baseline, other) of exactly two networks; a static one is the baseline."""
    if len(networks) != 2:
        return None
    first, second = networks
    return (second, first) if first.routing and not second.routing else (first, second)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table with aligned columns: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = row
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def standard_error(network: AnalysedNetwork) -> float:
    """Returns the standard error of top-1, sqrt(p (1 - p) / n), 0 to 1."""
    p = network.score("top1") or 0.0
    return math.sqrt(p * (1 - p) / network.examples)


def summary(networks: Sequence[AnalysedNetwork]) -> dict[str, Any]:
    """Returns the numbers of a report as JSON can hold them, accuracies from 0 to 1."""
    found: dict[str, Any] = {"networks": [_summary(network) for network in networks]}
    if (pair := compared(networks)) is not None:
        old, new = pair
        found["difference"] = {
            "of": new.name,
            "against": old.name,
            "top1": (new.score("top1") or 0.0) - (old.score("top1") or 0.0),
            "madds": new.madds - old.madds,
            "params": new.params - old.params,
        }
    return found


def _summary(network: AnalysedNetwork) -> dict[str, Any]:
    return {
        "name": network.name,
        "workdir": network.workdir,
        "step": network.step,
        "kind": network.kind,
        "examples": network.examples,
        "top1": network.score("top1"),
        "top1_correct": int(network.scores["top1"].total),
        "top1_standard_error": standard_error(network),
        "top5": network.score("top5"),
        "madds": network.madds,
        "madds_of_mixing_and_routing": network.overhead,
        "params": network.params,
        "train_seconds": _trained("seconds")(network),
        "images_per_second": _trained("images_per_second")(network),
        "train_loss": _trained("final_loss")(network),
        "routing": {
            layer: dataclasses.asdict(values) for layer, values in network.statistics().items()
        },
        "expert_spread": _finite(network.spread),
        "expert_rank": _finite(network.rank),
        "learned_spread": _finite(network.learned),
        "switched_off": _switched_off(network.switched_off),
    }


def _switched_off(found: SwitchedOff | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = {"layer": found.layer, "examples": found.images, "top1": found.top1}
    return {**names, "top1_without": found.without.tolist()}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def config_differences(networks: Sequence[AnalysedNetwork]) -> list[list[str]]:
    """Returns the keys whose values are not the same in all configs, with the values as texts."""
    flat = [flatten_config(network.config) for network in networks]
    keys = dict.fromkeys(key for config in flat for key in config)
    rows = [["key", *(network.name for network in networks)]]
    for key in sorted(keys):
        values = [str(config[key]) if key in config else NONE for config in flat]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return rows
