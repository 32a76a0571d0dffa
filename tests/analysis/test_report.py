import base64
import builtins
import dataclasses
import html
import json
import re

import numpy as np
import pytest

from condconv_jax.analysis import mean_by_class, require_matplotlib, table, text_table, write_report
from condconv_jax.analysis import report as report_page
from condconv_jax.analysis.figures import evenly, looks, merged, plain
from condconv_jax.analysis.report_text import table_note
from condconv_jax.analysis.routing_drawings import draw_class_maps
from condconv_jax.analysis.routing_figures import class_heat_maps
from condconv_jax.analysis.summary import compared, config_differences, duration, summary
from condconv_jax.analysis.svg import NAMESPACE
from condconv_jax.runtime import Sum

CLASSES = ["<b>bold</b>", "Trouser & $x$", *(f"class {i}" for i in range(2, 10))]


def write(folder, networks):
    return write_report(
        folder,
        networks,
        class_names=CLASSES,
        data="fashion_mnist, split test: 60 images of 10 classes",
        command=["condconv", "analyze", "--workdir=a <b>"],
        versions={"jax": "0"},
    )


@pytest.fixture(scope="module")
def networks(make_network):
    return [make_network("static", layers=(), correct=40), make_network("cond <i>")]


@pytest.fixture(scope="module")
def report(tmp_path_factory, networks):
    return write(tmp_path_factory.mktemp("report"), networks)


def test_the_page_holds_every_value_of_the_table(report, networks):
    page = report.read_text()
    for row in table(networks):
        for cell in row:
            assert html.escape(cell) in page


def test_the_page_holds_all_pictures_and_refers_to_nothing_else(report):
    page = report.read_text()
    files = {path.read_bytes() for path in (report.parent / "figures").glob("*.png")}
    sources = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    pictures = {base64.b64decode(source) for source in sources}
    # What is drawn as SVG is a file too, for papers.
    assert (len(pictures), len(files), page.count("<svg")) == (4, 7, 4)
    assert pictures < files
    rest = re.sub(r'src="data:[^"]*"', "", page).replace(NAMESPACE, "")
    assert not re.search(r"https?:|//|src=|href=|url\(|@import|<link|fetch|import\(", rest)


def test_all_text_is_escaped(report):
    page = report.read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "cond &lt;i&gt;" in page
    assert "a &lt;b&gt;" in page
    assert "<b>bold" not in page
    assert "cond <i>" not in page


def test_the_page_says_why_a_static_network_has_no_routing(report):
    assert "static is a static network, without CondConv layers" in report.read_text()


def test_drawings_tell_every_exact_value(report, networks):
    page = report.read_text()
    cond = networks[1]
    for layer, weights in cond.routing.items():
        means = mean_by_class(weights, cond.labels, len(CLASSES))
        for (label, expert), mean in np.ndenumerate(means):
            name = html.escape(CLASSES[label])
            assert f"<title>{name}, {layer}, expert {expert}: {mean:.3f}</title>" in page
        found = cond.statistics()[layer]
        for value in (found.specificity, found.spread):
            assert f"<title>cond &lt;i&gt;, {layer}: {value:.3f}</title>" in page


def test_experts_show_what_they_like_and_what_they_are_worth(report, networks):
    page = report.read_text().replace("&nbsp;", " ")
    for layer in ("layer_10", "classifier"):
        assert f"The images that experts of {layer} weigh most" in page
    assert "Without one expert of layer_10" in page
    assert "<td>75.00 %</td><td>−25.00</td>" in page  # noqa: RUF001  a minus sign
    assert "Top-1 over 20 evaluation images" in page
    effective = networks[1].statistics()["layer_7"].effective
    assert f"<td>{effective:.1f}</td>" in page


def test_layers_are_listed_in_their_order(report):
    page = report.read_text()
    places = [page.index(f"<td>{layer}</td>") for layer in ("layer_7", "layer_10", "classifier")]
    assert places == sorted(places)


def test_the_summary_has_exact_counts(report):
    found = json.loads((report.parent / "summary.json").read_text())
    assert [network["switched_off"] for network in found["networks"]] == [
        None,
        {"layer": "layer_10", "examples": 20, "top1": 1.0, "top1_without": [1.0, 0.75, 0.5, 1.0]},
    ]
    static, cond = found["networks"]
    assert (static["top1_correct"], static["examples"], static["top1"]) == (40, 60, 40 / 60)
    assert static["routing"] == {}
    assert list(cond["routing"]) == ["layer_7", "layer_10", "classifier"]
    assert len(cond["routing"]["layer_7"]["use"]) == 4
    assert found["difference"]["top1"] == pytest.approx(5 / 60)
    assert found["difference"]["against"] == "static"


def test_captions_state_what_is_there(report, networks, make_network):
    page = report.read_text().replace("&nbsp;", " ")
    near = networks[1].statistics()["classifier"].near_zero
    assert f"In the last layer, classifier, {100 * near:.0f} % of the weights are near 0" in page
    assert "lies 8.33 points above static, at 54 % more multiply-adds" in page
    # 40 and 45 of 60: standard errors of 6.1 and 5.6 points, 8.3 of a difference.
    assert "differ by 8.33 points, no more than twice the standard error" in page
    assert "from layer_7 to classifier: η² rises from" in page
    # 0.0826 is the root of the sum of both squares; 1.6 of 4.63 M multiply-adds mix and route.
    note = table_note(networks)
    assert "error of a difference (8.3)" in note
    assert "those of mixing and routing included (cond <i> 35 %)" in note
    later = dataclasses.replace(networks[0], step=9)
    assert "different numbers of steps: static 9, cond <i> 141" in table_note([later, networks[1]])


def test_experts_of_layers_that_share_their_routing_have_their_numbers(make_network):
    network = dataclasses.replace(
        make_network("shared", layers=("layer_7 to layer_8", "classifier")),
        modules={"layer_7 to layer_8": ["layer_7/pointwise", "layer_8/pointwise"]},
        spread={"layer_7/pointwise": 0.5, "layer_8/pointwise": 1.5, "classifier": 2.25},
    )
    rows = {row[0]: row for row in report_page._layers(network)[1:]}
    assert "0.50, 1.50" in rows["layer_7 to layer_8"]
    assert "2.25" in rows["classifier"]


def test_columns_of_the_layers_are_what_they_say(networks):
    cond = networks[1]
    network = dataclasses.replace(
        cond,
        spread=dict.fromkeys(cond.routing, 1.25),
        rank=dict.fromkeys(cond.routing, 3.75),
        learned=dict.fromkeys(cond.routing, 0.5),
    )
    header, *rows = report_page._layers(network)
    for row in rows:
        shown = dict(zip(header, row, strict=True))
        found = cond.statistics()[shown["layer"]]
        assert shown == {
            "layer": shown["layer"],
            "experts": "4",
            "mean weight": f"{found.mean:.3f}",
            "near 0": f"{100 * found.near_zero:.1f} %",
            "near 1": f"{100 * found.near_one:.1f} %",
            "effective experts": f"{found.effective:.1f}",
            "per image": f"{found.per_image:.1f}",
            "idle": str(len(found.idle)),
            "class specificity η²": f"{found.specificity:.3f}",
            "class spread": f"{found.spread:.3f}",
            "experts apart": "1.25",
            "stable rank": "3.75",
            "learned": "0.50",
        }


def test_experts_have_the_mean_weights_of_their_own_layer(report, networks):
    cond, page = networks[1], report.read_text().replace("&nbsp;", " ")
    for layer, weights in cond.routing.items():
        by_class = mean_by_class(weights, cond.labels, len(CLASSES))
        _, *rows = report_page._experts(cond, layer, by_class, CLASSES)
        assert [row[1] for row in rows] == [f"{use:.2f}" for use in weights.mean(axis=0)]
    use = cond.routing["layer_10"].mean(axis=0)[1]
    assert f"<td>{use:.2f}</td><td>75.00 %</td>" in page


def test_static_networks_alone_make_a_report(tmp_path, make_network):
    page = write(tmp_path / "new", [make_network("a", layers=())]).read_text()
    assert page.count("<figure>") == 2
    assert "How a routes" not in page


def test_many_classes_are_cut_to_the_most_specific(tmp_path, make_network):
    network = make_network("big", classes=50, experts=32, n=200)
    layers, classes = class_heat_maps(
        tmp_path / "maps.png", network.routing, network.labels, [f"class {i}" for i in range(50)]
    )
    assert layers == ["layer_7", "layer_10", "classifier"]
    assert len(classes) == len(set(classes)) == 20


def test_drawings_show_all_classes(make_network):
    network = make_network("big", classes=100, experts=32, n=400)
    names = [f"class {i}" for i in range(100)]
    drawing, layers, classes = draw_class_maps(network.routing, network.labels, names)
    assert layers == ["layer_7", "layer_10", "classifier"]
    assert sorted(classes) == list(range(100))
    assert drawing.count("<title>") == 100 * 32 * 3
    assert len(drawing) < 2_500_000


def test_the_difference_is_against_the_static_network(networks, make_network):
    static, cond = networks
    assert compared([cond, static]) == compared([static, cond]) == (static, cond)
    assert compared([static]) is None
    assert compared([static, cond, make_network("third")]) is None
    name, experts, top1, top5, madds, params, *rest = table(networks)[-1]
    assert (name, experts, top5) == ("cond <i> against static", "", "–")  # noqa: RUF001
    assert (top1, madds, params) == ("+8.33 points", "+53.8 %", "7.56-fold")
    assert rest == ["1.00-fold", "1.00-fold", "+0.000"]


@pytest.fixture
def measured(networks):
    """A static and a CondConv network no two of whose numbers are the same."""
    static, cond = networks
    slow = dataclasses.replace(static.curves, seconds=157.4, images_per_second=163.3)
    scores = {**cond.scores, "top5": Sum(np.float64(57), np.int64(60))}
    return [dataclasses.replace(static, curves=slow), dataclasses.replace(cond, scores=scores)]


def test_columns_of_the_table_are_what_they_say(measured):
    header, _, cond, difference = table(measured)
    assert dict(zip(header, cond, strict=True)) == {
        "network": "cond <i>",
        "experts": cond[1],
        "top-1": "75.00 %",
        "top-5": "95.00 %",
        "MADDs": "4.63 M",
        "parameters": "1.63 M",
        "training time": "78.7 s",
        "images/s": "327",
        # The mean of the last two rows, of half an epoch each: 2.3 / 2.5 and 2.3 / 3.
        "train loss": "0.843",
    }
    shown = dict(zip(header, difference, strict=True))
    assert (shown["training time"], shown["images/s"]) == ("0.50-fold", "2.00-fold")


def test_numbers_of_the_summary_are_what_they_say(measured):
    found = summary(measured)
    assert found["difference"] == {
        "of": "cond <i>",
        "against": "static",
        "top1": pytest.approx(5 / 60),
        "madds": 1_620_000,
        "params": 1_414_400,
    }
    cond = found["networks"][1]
    assert (cond["top1"], cond["top1_correct"], cond["top5"]) == (0.75, 45, 0.95)
    # sqrt(0.75 * 0.25 / 60)
    assert cond["top1_standard_error"] == pytest.approx(0.0559017, abs=1e-7)
    assert (cond["madds"], cond["madds_of_mixing_and_routing"]) == (4_630_000, 1_600_000)
    assert (cond["params"], cond["step"]) == (1_630_000, 141)
    assert (cond["train_seconds"], cond["images_per_second"]) == (78.7, 326.6)
    assert cond["train_loss"] == pytest.approx((2.3 / 2.5 + 2.3 / 3) / 2)


def test_the_text_table_is_aligned():
    lines = text_table([["network", "top-1"], ["a", "9.00 %"], ["long name", "10.00 %"]])
    assert lines.splitlines() == [
        "network      top-1",
        "------------------",
        "a           9.00 %",
        "long name  10.00 %",
    ]


def test_config_differences_name_the_keys_that_differ(networks):
    rows = config_differences(networks)
    assert rows == [["key", "static", "cond <i>"], ["model.num_experts", "0", "4"]]


def test_numbers_have_readable_units(networks):
    assert [duration(s) for s in (3.21, 119, 150, 7199, 9000)] == [
        "3.2 s", "119.0 s", "2.5 min", "120.0 min", "2.5 h",
    ]  # fmt: skip
    assert table(networks)[1][4:6] == ["3.01 M", "215.6 k"]


def test_summary_of_one_network_has_no_difference(networks):
    assert "difference" not in summary(networks[:1])


def test_layers_of_several_networks_keep_their_order():
    lists = [["layer_7", "layer_8", "classifier"], ["layer_1", "layer_7", "classifier"], ["x"]]
    assert merged(lists) == ["x", "layer_1", "layer_7", "layer_8", "classifier"]
    assert evenly(list("abcdefg"), 3) == ["a", "d", "g"]
    assert evenly(["a", "b"], 3) == ["a", "b"]


def test_networks_look_different_and_names_fit():
    found = looks([f"n{i}" for i in range(7)])
    assert len({look.color for look in found.values()}) == 7
    assert len({look.marker for look in found.values()}) == 7
    assert plain("a$b") == r"a\$b"
    assert plain("runs/imagenet/mobilenet_experts32", 20) == "runs/image…experts32"


def test_what_cannot_be_compared_is_refused(tmp_path, networks, make_network):
    with pytest.raises(ValueError, match="no networks; pass at least one"):
        write(tmp_path, [])
    with pytest.raises(ValueError, match="names static, static are not unique"):
        write(tmp_path, [networks[0], networks[0]])
    with pytest.raises(ValueError, match="static on 60, other on 50 images; evaluate all on the"):
        write(tmp_path, [networks[0], make_network("other", n=50)])


def test_missing_matplotlib_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'condconv_jax\[viz\]'"):
        require_matplotlib()
