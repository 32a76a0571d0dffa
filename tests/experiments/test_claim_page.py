"""From lines of results to verdicts and the page."""

import contextlib
import functools
import json
import math
import shutil

import claim_figures
import claim_head
import claim_networks
import claim_routing
import claim_routing_figures
import claims
import claims_large
import numpy as np
import pytest
import report
from claim_evidence import weigh
from claim_results import is_stale, read_results, write_results
from matplotlib.figure import Figure
from mixture_fakes import first_steps, mixtures
from PIL import Image

from condconv_jax.cli.flags import config_from_file

CLASSES = 100


def test_losses_are_judged_by_their_own_deviation(tmp_path):
    lines = [line(f"resnet_experts{n}", seed, 0.4) for n in (2, 8) for seed in range(2)]
    for index, (one, loss) in enumerate(zip(lines, (1.50, 1.52, 1.20, 1.22), strict=True)):
        lines[index] = {**one, "fit_loss": loss}
    page = page_of(tmp_path, lines)
    # A standard deviation of 0.0141 with 2 degrees of freedom: t = 4.3027.
    assert (
        "| 8 experts < 2 experts, loss on training pictures |  | -0.300 ± 0.061 nats | confirmed |"
        in page
    )


def test_training_pictures_are_judged_beside_the_others(tmp_path):
    lines = []
    for seed in range(2):
        lines += [
            {**line("static", seed, 0.4), "fit_top1": 0.50 + 0.01 * seed},
            {**line("experts8", seed, 0.4, 8), "fit_top1": 0.70 + 0.01 * seed},
        ]
    page = page_of(tmp_path, lines)
    # A standard deviation of 0.707 points with 2 degrees of freedom: t = 4.3027.
    row = "| 8 experts > static |  | +0.0 ± 0.0 points | undecided |  | +20.0 ± 3.0 points |"
    assert row in page
    # What is said of overfitting, or of training pictures already, is not judged on them.
    fits = weigh(claims.PLAN, lines).fits
    blank = {
        claim.key: [
            bool(e.overfits or e.beyond) or e.measure != "top1" or e.relation == "below"
            for e in claim.expectations
        ]
        for claim in claims.CLAIMS
    }
    assert {key: [fit is None for fit in found] for key, found in fits.items()} == blank
    assert all(blank["h"])
    assert not any(blank["a"])


@pytest.mark.parametrize(
    ("top1", "fit_loss", "verdict"),
    [
        (0.50, 1.2, "confirmed"),
        (0.50, 1.6, "not testable"),  # of 8 experts, which fit training pictures no better than 2
        (0.60, 1.2, "not testable"),  # and which are better on test pictures, too
    ],
)
def test_networks_that_do_not_overfit_say_nothing_about_overfitting(top1, fit_loss, verdict):
    lines = []
    for seed in range(2):
        jitter = 0.001 * seed
        lines += [
            {**line("resnet_experts2", seed, 0.55 + jitter), "fit_loss": 1.5},
            {**line("resnet_experts8", seed, top1 + jitter), "fit_loss": fit_loss},
            line("resnet_experts8_shake", seed, 0.70 + jitter),
        ]
    of_shake = [
        finding.verdict
        for finding in weigh(claims.PLAN, lines).findings["h"]
        if finding.expectation.of == "resnet_experts8_shake"
    ]
    assert of_shake == [verdict, verdict]


def test_what_knows_its_training_pictures_by_heart_overfits():
    by_heart = {"fit_top1": 1.0, "fit_loss": 0.001}
    tops = {"data10_8": 0.28, "data10_32": 0.24, "data10_32_drop": 0.30}
    lines = [
        {**line(name, seed, top1 + 0.001 * seed), **by_heart}
        for name, top1 in tops.items()
        for seed in range(2)
    ]
    evidence = weigh(claims.PLAN, lines)
    both = zip(evidence.findings["k"], evidence.fits["k"], strict=True)
    judged = {finding.expectation.of: (finding.verdict, fit) for finding, fit in both}
    assert judged["data10_32_drop"][0] in ("confirmed", "not tested")  # alone, and beside another
    # Nor is one told to fit them better than the other.
    assert judged["data10_8"] == ("confirmed", None)


def line(variant, seed, top1, experts=0):
    layers = ("layer_7", "layer_8", "classifier") if experts else ()
    values = {
        "specificity": 0.2,
        "chance": 0.01,
        "spread": 0.1,
        "mean": 0.5,
        "near_zero": 0.25,
        "near_one": 0.1,
        "use": [0.5] * experts,
        "histogram": [0.05] * 20,
    }
    kept = {str(max(1, experts // 4)): top1 - 0.005}  # of the weights, at half a point
    return {
        "run": f"{variant}_{seed}",
        "variant": variant,
        "seed": seed,
        "epochs": 30.0,
        "classes": 20 if variant.startswith("coarse") else CLASSES,
        "train_images": 50_000,
        "top1": top1,
        "top5": 0.8,
        "test_loss": 2.0,
        "train_loss": 1.5,
        "fit_top1": top1 + 0.01,
        "fit_loss": 1.4,
        "train_curve": [[10.0, 3.0], [20.0, 2.0], [30.0, 1.5]],
        "top1_curve": [[15.0, 0.2], [30.0, top1]],
        "madds": 740_000,
        "params": 70_000,
        "seconds": 360.0,
        "routing": dict.fromkeys(layers, values),
        "last_top_k": {"1": 0.1, "2": 0.2, **kept} if experts else {},
        "mean_routing": {"convolutions": 0.3, "classifier": 0.2} if experts else {},
        "mean_top_k": {"0": 0.15, **kept, "2": 0.3} if experts else {},
        "commit": "abc1234",
        "machine": "a processor",
        "config": settings_of_variant(variant) | {"seed": seed},
    }


@functools.cache
def settings_of_variant(name):
    variant = claims.PLAN.variants().get(name)
    return settings_of(variant.run(0)) if variant else {}


def settings_of(run):
    config = config_from_file(run.config, run.arguments()[1:]).to_dict()
    return json.loads(json.dumps(config))


def page_of(folder, lines):
    write_results(folder / report.LINES, lines)
    assert report.main([f"--out={folder}"]) == 0
    return (folder / "README.md").read_text()


def test_the_page_is_made_from_the_lines_alone(tmp_path, capsys):
    lines = [line("static", seed, 0.30 + 0.01 * seed) for seed in range(3)]
    lines += [line("experts8", seed, 0.40 + 0.01 * seed, 8) for seed in range(3)]
    lines += [line("static_long", 0, 0.31), line("experts8_long", 0, 0.42)]
    lines.append(line("width0.125_static", 0, 0.38))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "of_another_page.png").touch()
    page = page_of(tmp_path, lines)
    assert read_results(tmp_path / report.LINES) == lines
    assert (
        "9 runs, 0.9 hours of training by the clock, 6 to 6 minutes each, on: a processor" in page
    )
    # A standard deviation of 1 point with 4 degrees of freedom: t = 2.7764.
    interval = f"31.0 ± {2.7764 / math.sqrt(3):.1f}"
    assert f"| static | 50.0 | {interval} | 3 of 6 | 32.0 | 1.400 | 0.74 | 1.00 | 0.07 |" in page
    assert "| 8 experts > static | +10.0 | +10.0 ± 2.3 points | confirmed | compatible |" in page
    assert f"| 30 | 1.500 | {interval} | 1.500 | 41.0 ± 1.6 | 3, 3 |" in page
    assert "| 30 | 1.500 | 31.0 ± 2.8 | 1.500 | 42.0 ± 2.8 | 1, 1 |" in page
    assert "| 32 experts > static | +12.0 |  | not tested |" in page
    assert "| 1 confirmed of 5, 4 not tested |" in page
    # (2.7764 + 0.9410) * sqrt(2 / n), the quantiles at 97.5 % and 80 %.
    power = "80 % of such experiments if it is of as many points of top-1: 3.0 with 3 and 3 seeds."
    assert power in page
    assert "| layer_7 | 0.200 | 0.100 | 0.50 | 25 % | 10 % | 8.0 |" in page
    # No layer is more specific than another here, and weights lie evenly from 0 to 1.
    trend = "class specificity rises with depth: rank correlation above 0.5 (2 to 32 experts)"
    assert f"| {trend} | +0.00 ± 0.00 (3 runs, +0.00 to +0.00) | contradicted |" in page
    assert "is above 0 (8 experts) | +0.0 ± 0.0 (3 runs, +0.0 to +0.0) | contradicted |" in page
    assert "| 8 experts | 40.0 | 30.0 | 20.0 | 15.0 |" in page
    quarter = "a quarter of the weights, the largest, in the last layer, costs at most 1 point"
    costs = ", ".join(f"0.5 (experts8_{seed})" for seed in range(3))
    assert f"| {quarter} | {costs} | confirmed |" in page
    assert not (tmp_path / "figures" / "of_another_page.png").exists()
    for name in ("claim_a", "claim_f", "accuracy_madds", "setting", "routing", "top_k"):
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert picture.width > 500
        assert f"(figures/{name}.png)" in page


def test_networks_of_which_a_run_died_are_compared_with_nothing(tmp_path):
    lines = [line("experts8", seed, 0.40 + 0.01 * seed, 8) for seed in range(2)]
    # One that learned, one that did not and one that failed; and of tanh a single one that failed.
    lines += [line("relu", 0, 0.25), line("relu", 1, 0.01)]
    lines.append({"run": "relu_2", "variant": "relu", "seed": 2, "failed": "loss is nan"})
    lines.append({"run": "tanh_0", "variant": "tanh", "seed": 0, "failed": "loss is nan"})
    page = page_of(tmp_path, lines)
    assert "| ReLU | 56.0 | 25.0 ± 9.0 | 1 of 3, 1 failed, 1 learned nothing |" in page
    assert "| 8 experts > ReLU | +6.0 | a run died | not testable |  | a run died |" in page
    assert "| 8 experts > tanh | +2.0 | a run died | not testable |" in page


def test_a_network_that_never_learns(tmp_path):
    lines = [line("experts8", seed, 0.40 + 0.01 * seed, 8) for seed in range(2)]
    lines += [line("relu", seed, 0.0) for seed in range(2)]
    page = page_of(tmp_path, lines)
    assert "| ReLU | 56.0 | | 0 of 3, 2 learned nothing |" in page


def test_what_is_left_if_all_are_to_be_right(tmp_path):
    # A standard deviation of 1 point with 8 degrees of freedom: differences of 2.5 and 2.1 points
    # have p-values of 0.0155 and, twice, 0.033. Holm asks for 0.05 / 3 and then for 0.05 / 2.
    tops = {"static": 0.40, "experts8": 0.425, "softmax": 0.404, "tanh": 0.404}
    lines = [
        line(variant, seed, top1 + 0.01 * (seed - 1), 0 if variant == "static" else 8)
        for variant, top1 in tops.items()
        for seed in range(3)
    ]
    page = page_of(tmp_path, lines)
    assert "Of 3 differences on test pictures 3 are decided" in page
    assert "(Holm's method), there remain: 8 experts > static (+2.5, confirmed).\n" in page
    # "Alike" has no null hypothesis of no difference, and static and 8 experts are compared twice.
    found = [finding.p_value for finding in weigh(claims.PLAN, lines).findings["a"]]
    assert found[1] == pytest.approx(0.0155, abs=1e-4)
    assert math.isnan(found[0])


def test_nothing_is_learned_at_chance_of_as_many_classes():
    # A twentieth of the pictures are right by chance with 20 classes, as many as none with 100.
    evidence = weigh(claims.PLAN, [line("coarse_8", 0, 0.06), line("experts8", 0, 0.06, 8)])
    assert evidence.dead["coarse_8"]
    assert evidence.runs["experts8"]


def test_data_sets_have_deviations_of_their_own():
    lines = [line("static", seed, 0.3 + 0.01 * seed) for seed in range(2)]
    lines += [line("tiny_static", seed, 0.3 + 0.1 * seed) for seed in range(2)]
    own, tiny = weigh(claims.PLAN, lines).deviations.values()
    assert own.value == pytest.approx(math.sqrt(0.5))
    assert tiny.value == pytest.approx(10 * math.sqrt(0.5))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn from now on, of which no file is written."""
    figures = []

    @contextlib.contextmanager
    def canvas(path, width, height):
        figures.append(Figure(figsize=(width, height)))
        yield figures[-1]

    monkeypatch.setattr(claim_figures, "canvas", canvas)
    return figures


def bars(container):
    """Points (n, 2) with error bars, and the ends of these (n, 2, 2)."""
    points, _, (ends,) = container
    return points.get_xydata(), np.array(ends.get_segments())


def test_figures_draw_the_means_and_intervals_of_the_tables(drawn, tmp_path):
    tops = {"static": 0.30, "experts8": 0.40, "data10_static": 0.20, "data10_8": 0.25}
    lines = [
        line(name, seed, top1 + 0.01 * seed, 8 if name == "experts8" else 0)
        for name, top1 in tops.items()
        for seed in range(3)
    ]
    evidence = weigh(claims.PLAN, lines)
    # A standard deviation of 1 point with 8 degrees of freedom: t = 2.3060.
    half, of_difference = 2.3060 / math.sqrt(3), 2.3060 * math.sqrt(2 / 3)
    claim = next(claim for claim in claims.CLAIMS if claim.key == "a")
    claim_figures.draw_intervals(tmp_path, claim, claim.variants, evidence)
    points, ends = bars(drawn[-1].axes[0].containers[0])
    assert sorted(points[:, 0]) == pytest.approx([31, 41])
    for (middle, place), found in zip(points, ends, strict=True):
        wanted = [[middle - half, place], [middle + half, place]]
        np.testing.assert_allclose(found, wanted, rtol=1e-4)

    claim_figures.draw_accuracy_madds(
        tmp_path, claims.PLAN.variants(), evidence.runs, evidence.half
    )
    points, ends = bars(drawn[-1].axes[0].containers[0])
    np.testing.assert_allclose(points, [[0.74, 31], [0.74, 41]])
    np.testing.assert_allclose(np.ptp(ends[:, :, 1], axis=1), 2 * half, rtol=1e-4)

    claim_figures.draw_gain_by_data(tmp_path, evidence.runs, evidence.deviations[""])
    of_experts = drawn[-1].axes[0].containers
    # Of 2, 8 and 32 experts; on a tenth of the pictures and on all of them.
    assert [len(one[0].get_xdata()) for one in of_experts] == [0, 2, 0]
    points, ends = bars(of_experts[1])
    np.testing.assert_allclose(points, [[10, 5], [100, 10]])
    np.testing.assert_allclose(np.ptp(ends[:, :, 1], axis=1), 2 * of_difference, rtol=1e-4)


def test_what_is_measured_beside_the_runs_is_part_of_the_page(tmp_path):
    steps = {**first_steps(), "machines": ["a processor, cpu"]}
    (tmp_path / "first_steps.json").write_text(json.dumps(steps))
    classes = {
        "run": "experts2_1",
        "images": 10_000,
        "classes": ["apple", "sea"],
        "means": {"layer_7": [[0.5, 0.4], [0.5, 0.5]], "classifier": [[0.9, 0.1], [0.2, 0.8]]},
        "liked": [["apple", "sea"], ["sea", "apple"]],
        "top1": 0.4,
        "without": {"layer_14": [0.402, 0.39], "classifier": [0.38, 0.35]},
    }
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    lines = [line("experts8", 0, 0.4, 8), {**line("mixture8", 0, 0.4), **mixtures()["mixture8"][0]}]
    page = page_of(tmp_path, lines)
    assert "(experiments/claim_first_steps.py; a processor, cpu)" in page
    assert "layer_14 from -0.2 to +1.0 and classifier from +2.0 to +5.0, on 10,000" in page
    rows = ["| 1 | sea, apple | 5.0 |", "| 0 | apple, sea | 2.0 |"]
    assert "\n".join(rows) in page
    for name in ("parting", "classes"):
        assert f"(figures/{name}.png)" in page
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert picture.width > 500


def test_lines_of_other_settings_are_left_out(tmp_path, capsys):
    settings = settings_of(claim_networks.STATIC.run(0))
    now = {**line("static", 0, 0.3), "config": {**settings, "of": "a later version"}}
    then = {**line("static", 1, 0.3), "config": {**settings, "epochs": claim_networks.EPOCHS + 1}}
    then["config"]["seed"] = 1
    assert not is_stale(now, claim_networks.STATIC)
    assert is_stale(then, claim_networks.STATIC)
    page = page_of(tmp_path, [now, then, line("of_another_time", 0, 0.3)])
    assert "1 runs, 0.1 hours" in page
    said = capsys.readouterr().out
    assert "left out: static_1" in said
    assert "left out: of_another_time_0" in said


def test_lines_of_the_large_protocol_have_a_page_of_their_own(tmp_path, capsys):
    run = claims_large.PLAN.variants()["static"].run(0)
    write_results(tmp_path / report.LINES, [{**line("static", 0, 0.6), "config": settings_of(run)}])
    assert report.main(["--large", f"--out={tmp_path}"]) == 0
    assert "mobilenet_v1 0.25x" in (tmp_path / "README.md").read_text()
    assert report.main([f"--out={tmp_path}"]) == 1
    assert "left out: static_0" in capsys.readouterr().out


def test_what_people_read_in_the_results_is_part_of_the_page(tmp_path):
    readings = tmp_path / report.READINGS
    readings.write_text("In short.\n\n## a\n\nIt holds.\n")
    page = page_of(tmp_path, [line("static", 0, 0.3), line("experts8", 0, 0.4, 8)])
    assert page.index("In short.") < page.index("## a. ") < page.index("It holds.")
    readings.write_text("## z\n")
    assert report.main([f"--out={tmp_path}"]) == 1


@pytest.mark.parametrize("protocol", ["", "large"])
def test_the_committed_page_is_what_the_lines_say(tmp_path, monkeypatch, protocol):
    for figures in (claim_figures, claim_routing_figures, claim_routing):
        for name in list(vars(figures)):
            if name.startswith("draw_"):
                monkeypatch.setattr(figures, name, lambda *arguments, **options: None)
    # Links to the sources are relative to the page.
    monkeypatch.setattr(claim_head, "HERE", tmp_path / "experiments")
    committed, out = report.RESULTS / protocol, tmp_path / "experiments" / "results" / protocol
    out.mkdir(parents=True)
    for name in (report.LINES, report.READINGS, *(file.name for file in report.MEASURED)):
        if (committed / name).exists():
            shutil.copy(committed / name, out)
    assert report.main([f"--out={out}", *(["--large"] if protocol else [])]) == 0
    assert (out / "README.md").read_text() == (committed / "README.md").read_text()


def test_nothing_to_report(tmp_path, capsys):
    assert report.main([f"--out={tmp_path}"]) == 1
    assert "no line in" in capsys.readouterr().err
    assert report.main([f"--out={tmp_path}", f"--runs={tmp_path / 'nowhere'}"]) == 1
    assert "report.py: " in capsys.readouterr().err
