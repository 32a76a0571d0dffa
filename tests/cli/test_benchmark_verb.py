import json

import pytest

from condconv_jax import ops
from condconv_jax.cli import main
from condconv_jax.performance import against_static, machine, roofline
from condconv_jax.performance.layers import LAYERS

SMALL = ["--layer=cls256", "--batch=1,2", "--experts=2", "--rounds=1"]


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    peaks = machine.Peaks(matmul=400e9, read=40e9, fresh=4e9)
    monkeypatch.setattr(machine, "measure_peaks", lambda dtype: peaks)


@pytest.fixture
def printed(capsys):
    """Runs the verb and returns its lines."""

    def run(*arguments):
        assert main(["benchmark", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_against_the_static_twin(printed):
    lines = printed(*SMALL)
    assert lines[0].startswith("machine: ")
    assert lines[1] == (
        "peaks: 400 GFLOP/s (float32 matrix product), 40.0 GB/s read, "
        "4.00 GB/s written to fresh memory"
    )
    table = lines[3:8]
    assert table[0].split()[:4] == ["layer", "batch", "experts", "pass"]
    assert [row.split()[:4] for row in table[1:]] == [
        ["cls256", batch, "2", direction]
        for batch in ("1", "2")
        for direction in ("forward", "gradients")
    ]
    assert all(row.split()[4] in ops.METHODS for row in table[1:])
    # Aligned: every row ends with what binds, in one column.
    assert len({row.rstrip().rfind("  ") for row in table}) == 1


def test_numbers_against_the_static_twin(printed, monkeypatch):
    times = {"conditional": 4e-5, "static": 2e-5}
    monkeypatch.setattr(against_static, "interleave", lambda calls, **options: times)
    lines = printed("--layer=cls256", "--batch=2", "--experts=2", "--pass=gradients")
    method, *numbers, bound_by = lines[4].split()[4:]
    takes = roofline.cost(LAYERS["cls256"], 2, 2, method, gradients=True)
    least = roofline.bound(takes, machine.Peaks(matmul=400e9, read=40e9, fresh=4e9))
    assert numbers == [
        "0.0400",
        "0.0200",
        "2.00",
        f"{takes.flops / 4e-5 / 1e9:.1f}",
        roofline.three_digits(1e3 * least.seconds),
        f"{least.seconds / 4e-5:.0%}",
    ]
    assert bound_by == least.binds


def test_tuning(printed):
    lines = printed(*SMALL, "--tune", "--pass=forward", "--dtype=bfloat16")
    assert not any(line.startswith("peaks") for line in lines)
    assert lines[2].split() == [
        *("layer", "batch", "experts", "pass"),
        *ops.METHODS,
        *("auto", "best", "auto/best"),
    ]
    assert len({len(line) for line in lines[2:5]}) == 1
    last = next(line for line in lines if line.startswith("the rule is off in "))
    off = int(last.split()[5])
    assert f"of {2} rows" in last
    assert len(lines[lines.index(last) + 1 :]) == off


def test_where_the_rule_is_off(printed, monkeypatch):
    from condconv_jax.performance import tune

    def interleave(calls, **options):
        return {name: 0.002 if name == "pointwise" else 0.004 for name in calls}

    monkeypatch.setattr(tune, "interleave", interleave)
    monkeypatch.setattr(tune, "rule", lambda *case: "mixture")
    monkeypatch.setattr(tune, "give_up", lambda calls: (dict(calls), {}))
    lines = printed("--layer=cls256", "--batch=2", "--experts=2", "--tune", "--pass=forward")
    assert lines[-2].startswith("the rule is off in 1 of 1 rows")
    assert lines[-1].split() == (
        [
            "cls256",
            "2",
            "2",
            "forward",
            "pointwise",
            "takes",
            "2.00",
            "ms,",
            "mixture",
            "4.00:",
            "2.00",
            "times",
            "as",
            "long",
        ]
    )


def test_skipped_methods_are_named(printed):
    lines = printed(
        "--layer=dw1024", "--batch=2", "--experts=1", "--rounds=1", "--tune", "--pass=gradients"
    )
    start = lines.index("skipped:")
    assert any("reference: not started" in line for line in lines[start:])


def test_the_roofline_of_every_layer(printed):
    lines = printed("--roofline")
    assert lines[3] == "Batch 32, 8 experts, float32:"
    rows = [line.split("|") for line in lines if line.startswith("| ")][1:]
    assert {row[1].strip() for row in rows} == set(LAYERS)
    # 512 -> 512 channels, 14x14: 3.42 GFLOP at 400 GFLOP/s.
    (pointwise,) = [row for row in rows if "pw512" in row[1] and "pointwise" in row[2]]
    assert [cell.strip() for cell in pointwise[3:7]] == ["3.42", "101", "8.56", "arithmetic"]


@pytest.mark.parametrize("mode", [[], ["--tune"], ["--roofline"]])
def test_json(mode, printed, tmp_path):
    file = tmp_path / "out.json"
    lines = printed(*SMALL, "--pass=forward", *mode, f"--json={file}")
    assert lines[-1] == f"wrote {file}"
    report = json.loads(file.read_text())
    assert report["machine"] == machine.describe()
    assert ("peaks" in report) is (mode != ["--tune"])
    assert report["rows"]
    for row in report["rows"]:
        assert (row["layer"], row["num_experts"]) == ("cls256", 2)
        assert row["batch"] in (1, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layer=pw521"], "--layer: unknown layer 'pw521'; choose one of "),
        (["--layer=pw521"], "did you mean 'pw512'?"),
        (["--batch=0"], "--batch is '0'; pass positive integers, e.g. --batch 1,32"),
        (["--experts=8,x"], "--experts is 'x'; pass positive integers"),
        (["--batch=1,,2"], "--batch is ''; pass"),
        (["--rounds=0"], "--rounds is 0; pass at least 1"),
        (["--json=nowhere/out.json"], "--json: no folder 'nowhere'; make it"),
        (["--model=x"], "unknown argument '--model=x'"),
    ],
)
def test_mistakes(arguments, words, refused):
    assert words in refused("benchmark", *arguments)
