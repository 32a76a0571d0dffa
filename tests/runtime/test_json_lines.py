import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.runtime import JsonLinesWriter, read_json_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def write_steps(path, *steps):
    writer = JsonLinesWriter(path)
    for step in steps:
        writer.write(step, {"loss": step / 4})
    writer.close()


def test_round_trip_and_kinds(path):
    writer = JsonLinesWriter(path)
    writer.write(1, {"loss": jnp.float32(0.5), "seen": np.int64(64)})
    writer.write(1, {"top1": jnp.bfloat16(0.25)}, kind="eval")
    # Flushed at each line: all is there before close.
    assert read_json_lines(path) == [
        {"step": 1, "kind": "train", "loss": 0.5, "seen": 64},
        {"step": 1, "kind": "eval", "top1": 0.25},
    ]
    assert read_json_lines(path, kind="eval") == [{"step": 1, "kind": "eval", "top1": 0.25}]
    writer.close()


def test_non_finite_numbers_are_valid_json_and_come_back(path):
    writer = JsonLinesWriter(path)
    writer.write(0, {"a": float("nan"), "b": jnp.inf, "c": -np.inf})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"not JSON: {constant}")

    raw = json.loads(path.read_text(), parse_constant=refuse)
    assert (raw["a"], raw["b"], raw["c"]) == ("NaN", "Infinity", "-Infinity")
    (line,) = read_json_lines(path)
    assert math.isnan(line["a"])
    assert (line["b"], line["c"]) == (math.inf, -math.inf)


def test_truncate_drops_later_steps(path):
    write_steps(path, 1, 2, 3, 4)
    writer = JsonLinesWriter(path)
    writer.truncate_after(2)
    writer.write(3, {"loss": 9.0})
    writer.close()
    assert [(item["step"], item["loss"]) for item in read_json_lines(path)] == [
        (1, 0.25),
        (2, 0.5),
        (3, 9.0),
    ]


@pytest.mark.parametrize("evaluated", [True, False])
def test_an_evaluation_that_is_to_be_done_again_is_dropped(path, evaluated):
    writer = JsonLinesWriter(path)
    for step, kind in ((1, "train"), (1, "eval"), (2, "train"), (2, "eval"), (3, "train")):
        writer.write(step, {"loss": 0.5}, kind)
    writer.truncate_after(2, evaluated=evaluated)
    writer.close()
    # That of an earlier step is done, and so is the training of this one.
    kept = [(1, "train"), (1, "eval"), (2, "train"), *([(2, "eval")] if evaluated else [])]
    assert [(item["step"], item["kind"]) for item in read_json_lines(path)] == kept


@pytest.mark.parametrize("half", ['{"step": 3, "ki', "{", '{"step": 3, "loss": 0.1, "é'[:-1]])
def test_half_written_last_line_is_dropped(path, half):
    write_steps(path, 1, 2)
    with path.open("a") as file:
        file.write(half)
    assert [item["step"] for item in read_json_lines(path)] == [1, 2]
    write_steps(path, 3)
    assert [item["step"] for item in read_json_lines(path)] == [1, 2, 3]


def test_bytes_cut_within_a_character_are_dropped(path):
    write_steps(path, 1)
    with path.open("ab") as file:
        file.write('{"step": 2, "é'.encode()[:-1])
    write_steps(path, 2)
    assert [item["step"] for item in read_json_lines(path)] == [1, 2]


def test_whole_last_line_without_its_newline_is_kept(path):
    write_steps(path, 1)
    with path.open("a") as file:
        file.write('{"step": 2, "kind": "train"}')
    write_steps(path, 3)
    assert [item["step"] for item in read_json_lines(path)] == [1, 2, 3]


def test_truncating_leaves_no_other_files(path):
    write_steps(path, 1, 2)
    writer = JsonLinesWriter(path)
    writer.truncate_after(1)
    writer.close()
    assert [p.name for p in path.parent.iterdir()] == ["metrics.jsonl"]


def test_damage_in_the_middle(path):
    write_steps(path, 1)
    with path.open("a") as file:
        file.write("what?\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: 'what\?' is not an object"):
        JsonLinesWriter(path)
    with pytest.raises(ValueError, match="remove the line, or move the file away"):
        read_json_lines(path)


@pytest.mark.parametrize("name", ["step", "kind"])
def test_reserved_names(path, name):
    with pytest.raises(ValueError, match=f"{name} cannot be the name of a scalar"):
        JsonLinesWriter(path).write(1, {name: 1.0})


@pytest.mark.parametrize("value", [np.zeros(2), "0.5", None])
def test_values_that_are_no_scalars(path, value):
    with pytest.raises(ValueError, match="pass a scalar number"):
        JsonLinesWriter(path).write(1, {"loss": value})


def test_nothing_to_read(path):
    with pytest.raises(FileNotFoundError, match=r"no .*metrics.jsonl; pass the metrics.jsonl of"):
        read_json_lines(path)
