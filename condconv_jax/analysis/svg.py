"""Charts as SVG text, whose marks tell their exact values.

Each mark holds its value as <title>, which browsers show on hover and screen readers read; the
script of page.html shows the same without delay. Lengths are in pixels.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from condconv_jax.analysis.figures import GREY, Look, shortened

# Of files that stand alone, such as a notebook's outputs; nothing is fetched from there.
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
FONT = 'font-family="system-ui, Roboto, DejaVu Sans, sans-serif" font-size="11.5"'
LETTER = 6.6  # mean width of a letter in pixels
# Evenly spaced colours of matplotlib's viridis.
VIRIDIS = (
    "440154", "482173", "433e85", "38588c", "2d708e", "25858e", "1e9b8a", "2ab07f",
    "52c569", "86d549", "c2df23", "fde725",
)  # fmt: skip
DASHES = {"-": "", "--": "7 4", "-.": "8 3 2 3", ":": "2 3"}


def heat_maps(
    maps: Mapping[str, np.ndarray], rows: Sequence[str], low: float, high: float, *, label: str
) -> str:
    """Returns heat maps side by side, with the same rows and one colour scale.

    Args:
      maps: title -> values (rows, columns).
      rows: their names.
      low: value of the darkest colour.
      high: value of the lightest.
      label: what the values are.
    """
    height = 21 if len(rows) <= 20 else 13
    names = [shortened(name) for name in rows]
    left, top = LETTER * max(map(len, names)) + 10, 26
    bottom = top + height * len(rows)
    parts = [_text(left - 6, top + height * (i + 0.7), n, "end") for i, n in enumerate(names)]
    for title, values in maps.items():
        columns = values.shape[1]
        width = min(32.0, max(6.0, 250 / columns))
        parts.append(_text(left, top - 9, title, bold=True))
        for row, name in enumerate(rows):
            for column in range(columns):
                value = float(values[row, column])
                parts.append(
                    f'<rect x="{left + column * width:.5g}" y="{top + row * height}" '
                    f'width="{width:.4g}" height="{height}" fill="{viridis(value, low, high)}">'
                    f"{_tip(f'{name}, {title}, expert {column}: {value:.3f}')}</rect>"
                )
        step = max(1, math.ceil(20 / width))
        for column in range(0, columns, step):
            parts.append(_text(left + (column + 0.5) * width, bottom + 15, str(column), "middle"))
        parts.append(_text(left + columns * width / 2, bottom + 32, "expert", "middle"))
        # A long title must not run into the next map.
        left += max(columns * width, LETTER * len(title)) + 22
    parts.append(_color_bar(left, top, min(220, bottom - top), low, high, label))
    return _svg(left + 80, bottom + 40, parts, f"{label}, by row and expert")


def histograms(
    shares: Mapping[str, np.ndarray],
    edges: np.ndarray,
    color: str,
    *,
    notes: Mapping[str, str],
    band: tuple[float, float],
) -> str:
    """Returns histograms on equal axes, three beside each other.

    Args:
      shares: title -> share of each bin, 0 to 1.
      edges: of the bins, ascending.
      color: of the bars.
      notes: title -> a text in its corner.
      band: values to mark, from and to.
    """
    columns, width, height, gap, left, top = min(3, len(shares)), 265, 120, 24, 58, 28
    most = max(float(values.max()) for values in shares.values())
    ticks = round_ticks(0, 100 * most)
    scale = height / (120 * most)  # room for the note
    low, high = float(edges[0]), float(edges[-1])

    def across(value: float) -> float:
        return (value - low) / (high - low) * width

    parts = []
    for index, (title, values) in enumerate(shares.items()):
        x, y = left + index % columns * (width + gap), top + index // columns * (height + 52)
        base = y + height
        start, end = across(max(low, band[0])), across(min(high, band[1]))
        parts.append(_rect(x + start, y, end - start, height, GREY, opacity=0.14))
        for tick in ticks:
            level = base - tick * scale
            parts.append(_line(x, level, x + width, level))
            if index % columns == 0:
                parts.append(_text(x - 6, level + 4, f"{tick:g}", "end"))
        for k, share in enumerate(100 * values):
            a, b = across(edges[k]), across(edges[k + 1])
            tip = f"{title}: {share:.2f} % of the weights from {edges[k]:.2f} to {edges[k + 1]:.2f}"
            # The whole height of a bin answers, however low its bar is.
            parts.append(
                f"<g>{_tip(tip)}{_rect(x + a, y, b - a, height, 'transparent')}"
                f"{_rect(x + a, base - share * scale, b - a, share * scale, color)}</g>"
            )
        for tick in round_ticks(low, high):
            parts.append(_text(x + across(tick), base + 15, f"{tick:g}", "middle"))
        parts.append(_text(x, y - 7, title, bold=True))
        parts.append(_text(x + width - 6, y + 15, notes[title], "end"))
    rows = -(-len(shares) // columns)
    right, bottom = left + columns * (width + gap), top + rows * (height + 52)
    parts.append(_text((left + right - gap) / 2, bottom - 12, "routing weight", "middle"))
    middle = (top + bottom) / 2 - 20
    parts.append(_text(14, middle, "share of weights (%)", "middle", turned=-90))
    return _svg(right - gap + 12, bottom, parts, "share of the routing weights by their size")


def lines(
    series: Mapping[str, Mapping[str, float]],
    places: Sequence[str],
    look: Mapping[str, Look],
    *,
    title: str,
    top: float,
    reference: tuple[float, str] | None = None,
) -> str:
    """Returns lines over named places, each point with its value.

    Args:
      series: name -> place -> value, not below 0.
      places: from left to right.
      look: of each series.
      title: what the values are.
      top: end of the value axis.
      reference: a value to mark by a dotted line, with its name.
    """
    y, width, height = 62, 410, 210
    base, turned = y + height, len(places) > 3
    names = {place: shortened(place, 20) for place in places}
    longest = max(map(len, names.values()))
    step = width / len(places)
    # The first of the turned names reaches to the left of its place.
    left = max(46.0, 0.77 * LETTER * longest - step / 2 + 6 if turned else 0.0)
    centre = {place: left + (i + 0.5) * step for i, place in enumerate(places)}

    def up(value: float) -> float:
        return base - value / top * height

    parts = [_text(left, 16, title, bold=True)]
    for tick in round_ticks(0, top):
        parts.append(_line(left, up(tick), left + width, up(tick)))
        parts.append(_text(left - 6, up(tick) + 4, f"{tick:g}", "end"))
    shown = max(1, math.ceil(20 / step))
    for place in places[::shown]:
        x, name = centre[place], names[place]
        if turned:
            parts.append(_text(x + 4, base + 14, name, "end", turned=-40))
        else:
            parts.append(_text(x, base + 17, name, "middle"))
    if reference is not None:
        level, name = reference
        parts.append(_line(left, up(level), left + width, up(level), GREY, "2 3"))
        parts.append(_text(left + width, up(level) - 5, name, "end"))
    legend = left
    for name, values in series.items():
        color, dash = look[name].color, DASHES[look[name].line]
        points = [(centre[place], up(value)) for place, value in values.items()]
        path = " ".join(f"{x:.5g},{at:.5g}" for x, at in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        for (place, value), (x, at) in zip(values.items(), points, strict=True):
            tip = _tip(f"{name}, {place}: {value:.3f}")
            parts.append(
                f'<g>{tip}<circle cx="{x:.5g}" cy="{at:.5g}" r="11" fill="transparent"/>'
                f'<circle cx="{x:.5g}" cy="{at:.5g}" r="4" fill="{color}"/></g>'
            )
        parts.append(_line(legend, 38, legend + 24, 38, color, dash, 2))
        parts.append(_text(legend + 30, 42, shortened(name)))
        legend += 46 + LETTER * len(shortened(name))
    bottom = base + (0.7 * LETTER * longest + 22 if turned else 28)
    return _svg(max(left + width, legend) + 12, bottom, parts, title)


def viridis(value: float, low: float, high: float) -> str:
    """Returns the colour of a value between low and high; grey of one that is no number."""
    if math.isnan(value):
        return "#d0d0d0"
    place = (min(high, max(low, value)) - low) / (high - low) * (len(VIRIDIS) - 1)
    first = min(int(place), len(VIRIDIS) - 2)
    a, b = (bytes.fromhex(color) for color in VIRIDIS[first : first + 2])
    mixed = [round(x + (z - x) * (place - first)) for x, z in zip(a, b, strict=True)]
    return "#" + bytes(mixed).hex()


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns up to `most` multiples of 1, 2 or 5 times a power of ten, from low to high."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    return [round(k * step, 10) for k in range(first, last + 1)]


def _color_bar(x: float, y: float, height: float, low: float, high: float, label: str) -> str:
    count = 40
    parts = []
    for k in range(count):
        value = high - (k + 0.5) / count * (high - low)
        # A little taller than its step, so that no seams show.
        parts.append(
            _rect(x, y + k * height / count, 12, height / count + 0.6, viridis(value, low, high))
        )
    for tick in round_ticks(low, high):
        level = y + (high - tick) / (high - low) * height
        parts.append(_text(x + 17, level + 4, f"{tick:g}"))
    return "".join([*parts, _text(x + 58, y + height / 2, label, "middle", turned=-90)])


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    attributes = (
        f'{NAMESPACE} width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="background: #fff" {FONT} fill="#3c4043" '
        f'role="group" aria-label="{html.escape(label)}"'
    )
    return f"<svg {attributes}>\n" + "\n".join(parts) + "\n</svg>"


def _tip(text: str) -> str:
    return f"<title>{html.escape(text)}</title>"


def _rect(x: float, y: float, width: float, height: float, fill: str, **style: Any) -> str:
    extra = "".join(f' {name}="{value}"' for name, value in style.items())
    return (
        f'<rect x="{x:.5g}" y="{y:.5g}" width="{width:.4g}" height="{height:.4g}" fill="{fill}"'
        f"{extra}/>"
    )


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    color: str = "#e4e6e9",
    dash: str = "",
    width: float = 1,
) -> str:
    return (
        f'<line x1="{x1:.5g}" y1="{y1:.5g}" x2="{x2:.5g}" y2="{y2:.5g}" stroke="{color}" '
        f'stroke-width="{width:g}" stroke-dasharray="{dash}"/>'
    )


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, bold: bool = False, turned: int = 0
) -> str:
    weight = ' font-weight="600"' if bold else ""
    turn = f' transform="rotate({turned} {x:.5g} {y:.5g})"' if turned else ""
    return (
        f'<text x="{x:.5g}" y="{y:.5g}" text-anchor="{anchor}"{weight}{turn}>'
        f"{html.escape(text)}</text>"
    )
