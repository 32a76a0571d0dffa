"""How long frames take, and what may be said of it."""

from array import array
from collections.abc import Iterable, Mapping

import numpy as np

PERCENTILES = (50, 90, 99)
DEFINITION = "linear interpolation between order statistics, as numpy.percentile"
PARTS = ("read_and_prepare", "network", "total")


class Latencies:
    """The time that each frame took, in its two parts."""

    def __init__(self) -> None:
        # A camera may run for days: eight bytes for each number.
        self._reading, self._network = array("d"), array("d")

    def add(self, reading: float, network: float) -> None:
        """Takes a frame: seconds until it was ready for the network, and in the network."""
        self._reading.append(reading)
        self._network.append(network)

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._reading)

    def milliseconds(self) -> dict[str, dict[str, float | None]]:
        """Returns `percentiles` of each of PARTS, in milliseconds.

        The total is that of each frame, so that its percentiles are not the sums of the others.
        """
        reading, network = np.array(self._reading), np.array(self._network)
        parts = (reading, network, reading + network)
        return {name: percentiles(1000 * part) for name, part in zip(PARTS, parts, strict=True)}


def percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """Returns {"p50", "p90", "p99", "max"} of some values, in their unit.

    The q-th percentile of n sorted values is the one at q / 100 * (n - 1), counted from 0, and
    between two the share in proportion. Of fewer than 100 / (100 - q) values (2, 10 and 100) it is
    None: it would be the maximum by another name.

    Args:
      values: in any order.
    """
    given = np.sort(np.fromiter(values, np.float64))
    found: dict[str, float | None] = {}
    for q in PERCENTILES:
        enough = len(given) * (100 - q) >= 100
        found[f"p{q}"] = float(np.percentile(given, q, method="linear")) if enough else None
    found["max"] = float(given[-1]) if len(given) else None
    return found


def title(part: str) -> str:
    """Returns what texts call one of PARTS."""
    return part.replace("_and_", "+")


def line(values: Mapping[str, float | None]) -> str:
    """Returns percentiles on a line, those that may be told."""
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items() if value is not None)


def table(milliseconds: Mapping[str, Mapping[str, float | None]]) -> str:
    """Returns latencies as lines of text, a part each; what may not be told is a dash."""
    columns = next(iter(milliseconds.values()))
    lines = ["latency in ms " + "".join(f"{column:>9}" for column in columns)]
    for part, values in milliseconds.items():
        cells = ("-" if value is None else f"{value:.2f}" for value in values.values())
        lines.append(f"{title(part):<14}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)
