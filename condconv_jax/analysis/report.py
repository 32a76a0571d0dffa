"""The report on trained networks: figures, a summary and one page that explains them."""

import json
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condconv_jax.analysis import figures, page, report_text, routing_drawings, routing_figures
from condconv_jax.analysis.routing import chance_specificity, mean_by_class, top_classes
from condconv_jax.analysis.summary import (
    NONE,
    AnalysedNetwork,
    config_differences,
    signed,
    standard_error,
    summary,
    table,
)

PAGE, SUMMARY, FIGURES = "index.html", "summary.json", "figures"
MANY_EXPERTS = 64  # rows of the table of experts at most


def write_report(
    folder: str | Path,
    networks: Sequence[AnalysedNetwork],
    *,
    class_names: Sequence[str],
    data: str,
    command: Sequence[str],
    versions: Mapping[str, str],
) -> Path:
    """Writes `index.html`, `summary.json` and the figures; returns the page's path.

    Args:
      folder: made if missing; files of an earlier report there are replaced.
      networks: at least one, all evaluated on the same images.
      class_names: by label.
      data: the evaluation images, in words.
      command: that made the report, as a list of arguments.
      versions: of software, by name.

    Raises:
      ValueError: if there are no networks, two share a name, or they were evaluated on different
        sets.
      ImportError: if matplotlib is missing.
    """
    _check(networks)
    figures.require_matplotlib()
    folder = Path(folder)
    pictures = folder / FIGURES
    pictures.mkdir(parents=True, exist_ok=True)
    look = figures.looks([network.name for network in networks])
    routed = [network for network in networks if network.routing]
    rows = table(networks)

    parts = [report_text.explanation(networks)]
    parts += [page.heading("Accuracy and cost")]
    parts += [page.table(rows, difference=len(rows) == len(networks) + 2)]
    parts += [page.paragraph(report_text.table_note(networks), kind="note")]
    parts += _comparisons(pictures, networks, look)
    for network in routed:
        parts += _routing(pictures, network, look[network.name], class_names)
    parts += _specificity(pictures, routed, look)
    if static := [network.name for network in networks if not network.routing]:
        parts += [page.heading("Without routing")]
        parts += [page.paragraph(report_text.static_note(static))]
    parts += _origin(networks, command, versions)

    content = {
        "data": data,
        "command": shlex.join(command),
        "versions": dict(versions),
        **summary(networks),
    }
    (folder / SUMMARY).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    title = "CondConv report: " + ", ".join(network.name for network in networks)
    target = folder / PAGE
    target.write_text(page.page(title, f"Evaluated on {data}.", parts), encoding="utf-8")
    return target


def _comparisons(
    pictures: Path, networks: Sequence[AnalysedNetwork], look: Mapping[str, figures.Look]
) -> list[str]:
    curves, cost = pictures / "training_curves.png", pictures / "accuracy_madds.png"
    found = []
    if trained := {n.name: n.curves for n in networks if n.curves is not None}:
        figures.training_curves(curves, trained, look)
        found.append(page.figure(curves, "Training curves", report_text.curves_caption(networks)))
    figures.accuracy_against_madds(
        cost,
        {n.name: (n.madds, n.score("top1") or 0.0, standard_error(n)) for n in networks},
        look,
    )
    return [
        *found,
        page.figure(cost, "Accuracy against multiply-adds", report_text.cost_caption(networks)),
    ]


def _routing(
    pictures: Path, network: AnalysedNetwork, look: figures.Look, class_names: Sequence[str]
) -> list[str]:
    """The section on one network's routing."""
    stem = urllib.parse.quote(network.name, safe="")  # a name may hold slashes
    spread, maps = pictures / f"weights_{stem}.png", pictures / f"classes_{stem}.png"
    # The files are for papers, the page has the same with values on hover, and more classes.
    layers = routing_figures.weight_distributions(spread, network.routing, look.color)
    routing_figures.class_heat_maps(maps, network.routing, network.labels, class_names)
    drawn, depths, classes = routing_drawings.draw_class_maps(
        network.routing, network.labels, class_names
    )
    last = list(network.routing)[-1]
    by_class = mean_by_class(network.routing[last], network.labels, len(class_names))
    return [
        page.heading(f"How {network.name} routes"),
        page.drawing(
            [routing_drawings.draw_distributions(network.routing, look.color)],
            "Distribution of routing weights",
            report_text.distribution_caption(network, layers),
        ),
        page.drawing(
            [drawn],
            "Mean routing weight by class and expert",
            report_text.classes_caption(network, depths, len(classes), class_names),
        ),
        page.heading(f"Experts of the last layer, {last}", level=3),
        page.table(_experts(network, last, by_class, class_names), kind="words"),
        page.paragraph(report_text.experts_note(last), kind="note"),
        *_favourites(pictures, network, class_names),
        *_switched_off(network),
        page.heading("Layer by layer", level=3),
        page.table(_layers(network)),
        page.paragraph(report_text.spread_note(network), kind="note"),
    ]


def _experts(
    network: AnalysedNetwork, layer: str, by_class: Any, class_names: Sequence[str]
) -> list[list[str]]:
    rows = [["expert", "mean weight", "classes that weigh it most"]]
    use = network.statistics()[layer].use
    for expert, classes in enumerate(top_classes(by_class)[:MANY_EXPERTS]):
        named = ", ".join(f"{class_names[c]} ({by_class[c, expert]:.2f})" for c in classes)
        rows.append([str(expert), f"{use[expert]:.2f}", named])
    return rows


def _favourites(pictures: Path, network: AnalysedNetwork, class_names: Sequence[str]) -> list[str]:
    parts = []
    for layer, found in network.favourites.items():
        stem = urllib.parse.quote(f"{network.name} {layer}", safe="")
        path = pictures / f"favourites_{stem}.png"
        routing_figures.favourite_pictures(path, found, class_names)
        caption = report_text.favourites_caption(network, layer)
        parts.append(page.figure(path, f"The images that experts of {layer} weigh most", caption))
    return parts


def _switched_off(network: AnalysedNetwork) -> list[str]:
    found = network.switched_off
    if found is None:
        return []
    use = network.statistics()[found.layer].use
    rows = [["expert", "mean weight", "top-1 without it", "change (points)"]]
    for expert, top1 in enumerate(found.without):
        change = signed(100 * (top1 - found.top1), 2)
        rows.append([str(expert), f"{use[expert]:.2f}", f"{100 * top1:.2f} %", change])
    return [
        page.heading(f"Without one expert of {found.layer}", level=3),
        page.table(rows[: MANY_EXPERTS + 1]),
        page.paragraph(report_text.switched_off_note(found), kind="note"),
    ]


def _layers(network: AnalysedNetwork) -> list[list[str]]:
    rows = [
        [
            "layer",
            "experts",
            "mean weight",
            "near 0",
            "near 1",
            "effective experts",
            "per image",
            "idle",
            "class specificity η²",
            "class spread",
            "experts apart",
            "stable rank",
            *(["learned"] if network.learned else []),
        ]
    ]
    for layer, found in network.statistics().items():
        shares = [f"{100 * share:.1f} %" for share in (found.near_zero, found.near_one)]
        used = [f"{found.effective:.1f}", f"{found.per_image:.1f}", str(len(found.idle))]
        by_class = [f"{found.specificity:.3f}", f"{found.spread:.3f}"]
        modules = network.modules.get(layer, [layer])
        apart = [_of_modules(network.spread, modules), _of_modules(network.rank, modules)]
        if network.learned:
            apart.append(_of_modules(network.learned, modules))
        mean = [str(found.experts), f"{found.mean:.3f}"]
        rows.append([layer, *mean, *shares, *used, *by_class, *apart])
    return rows


def _of_modules(values: Mapping[str, float], modules: Sequence[str]) -> str:
    return ", ".join(f"{values[module]:.2f}" for module in modules if module in values) or NONE


def _specificity(
    pictures: Path, routed: Sequence[AnalysedNetwork], look: Mapping[str, figures.Look]
) -> list[str]:
    if not routed:
        return []
    found = {network.name: network.statistics() for network in routed}
    chance = chance_specificity(routed[0].labels)
    curves = (
        {name: {k: v.specificity for k, v in layers.items()} for name, layers in found.items()},
        {name: {k: v.spread for k, v in layers.items()} for name, layers in found.items()},
        chance,
        look,
    )
    figures.routing_by_depth(pictures / "class_by_depth.png", *curves)
    caption = report_text.depth_caption(found, chance)
    return [
        page.heading("How much the class decides the routing"),
        page.drawing(
            routing_drawings.draw_depth(*curves), "Class-specific routing by depth", caption
        ),
    ]


def _origin(
    networks: Sequence[AnalysedNetwork], command: Sequence[str], versions: Mapping[str, str]
) -> list[str]:
    parts = []
    if len(networks) > 1:
        differences = config_differences(networks)
        parts.append(page.heading("What differs between the configs"))
        if len(differences) > 1:
            parts.append(page.table(differences, kind="words"))
        else:
            parts.append(page.paragraph("Nothing: the runs have the same config."))
    trained = "; ".join(f"{n.name}: {n.workdir}, step {n.step:,}" for n in networks)
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        *parts,
        page.heading("How this page was made"),
        page.code(" \\\n    ".join([shlex.join(command[:2]), *map(shlex.quote, command[2:])])),
        page.paragraph(
            f"Checkpoints: {trained}. Made with {software}. The numbers are in "
            f"{SUMMARY}, the pictures in {FIGURES}/, next to this page.",
            kind="note",
        ),
    ]


def _check(networks: Sequence[AnalysedNetwork]) -> None:
    names = [network.name for network in networks]
    if not names:
        raise ValueError("write_report: no networks; pass at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"write_report: the names {', '.join(names)} are not unique; rename them")
    sizes = {network.name: network.examples for network in networks}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} on {size}" for name, size in sizes.items())
        raise ValueError(f"write_report: evaluated {found} images; evaluate all on the same ones")
