"""Whole networks in ONNX Runtime and LiteRT; `make test-export`."""

import json

import numpy as np
import pytest
from PIL import Image

from condconv_jax.cli import compressing, main
from condconv_jax.cli.exporting import make_program, make_reference
from condconv_jax.cli.network import BoundNetwork
from condconv_jax.cli.trained import load_trained
from condconv_jax.interop.export import FORMATS, export_program, read_exported
from condconv_jax.interop.export.verify import make_pictures
from condconv_jax.tasks import Classification, Detection

pytestmark = [pytest.mark.export, pytest.mark.timeout(900)]

RUNTIMES = ("onnx", "litert")
# Small, but with every kind of layer that the networks have.
NETWORKS = {
    "mobilenet_v1": {"width": 0.125, "num_experts": 3, "squeeze_excite": 0.25},
    "mobilenet_v2": {"width": 0.25, "num_experts": 2},
    "mnasnet_a1": {"width": 0.25, "num_experts": 2},
    "efficientnet_b0": {"width": 0.125, "num_experts": 2},
    "resnet50": {"width": 0.0625, "num_experts": 2},
    "ssd300_mobilenet_v1": {"width": 0.125, "num_experts": 2},
}


def network(name, size=48):
    import jax

    from condconv_jax import models

    model = models.create(name, 5, **NETWORKS[name])
    statistics = ((0.5,) * 3, (0.25,) * 3)
    if model.TASK == "detection":
        task = Detection(model, size, *statistics, tuple("abcde"))
    else:
        task = Classification(model, size, *statistics)
    params, state = jax.jit(task.init)(jax.random.key(0))
    if model.TASK == "detection":
        # Drawn predictors leave all boxes where their anchors are, but for 2e-5, and all scores
        # alike.
        for name in [name for name in params if name.startswith("predictor_")]:
            for part, factor in (("boxes", 100), ("classes", 10)):
                kernel = params[name][part]["kernel"]
                params[name][part] = {**params[name][part], "kernel": factor * kernel}
    # Batch norms that do something, so that outputs of untrained layers stay of one size.
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: leaf * rng.uniform(0.5, 1.5, leaf.shape), state)
    return BoundNetwork(model.TASK, task, params, state)


@pytest.mark.parametrize("form", RUNTIMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_with_a_free_batch(name, form, tmp_path):
    whole = network(name)
    exported = whole.folded().with_method(FORMATS[form].method)
    path = tmp_path / f"net{FORMATS[form].suffix}"
    written = export_program(make_program(exported, {}), make_reference(whole), form, path)
    assert written.difference.error <= written.tolerance
    pictures = make_pictures(4, 48, seed=1)
    wanted = make_reference(whole).outputs(pictures)
    got = read_exported(path, threads=1).run(pictures)
    for output, values in wanted.items():
        # Other pictures than it was checked with, for which rounding in an untrained network may
        # grow to more; another picture's kernels would be off by more than a tenth.
        limit = 1e-3 * np.abs(values).max()
        np.testing.assert_allclose(got[output], values, rtol=0, atol=limit)


@pytest.mark.parametrize("form", RUNTIMES)
def test_predict_takes_the_file_like_the_run(form, trained, tmp_path, capsys):
    path = tmp_path / f"net{FORMATS[form].suffix}"
    arguments = ["export", f"--workdir={trained}", f"--format={form}", f"--out={path}"]
    capsys.readouterr()
    assert main(arguments) == 0
    assert "more than 1e-5" not in capsys.readouterr().out
    assert read_exported(path).metadata["class_names"][0] == "T-shirt/top"
    for index, image in enumerate(make_pictures(3, 28)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    found = []
    for source in (f"--workdir={trained}", f"--model={path}"):
        capsys.readouterr()
        assert main(["predict", source, "--json", f"{tmp_path}/*.png"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found.append([[row["probability"] for row in line["classes"]] for line in lines])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


@pytest.mark.parametrize("experts", ["float32", "int8"])
@pytest.mark.parametrize("form", RUNTIMES)
def test_a_network_made_sparse_and_small(form, experts, trained, tmp_path, capsys):
    loaded = load_trained(trained, [])
    candidates = compressing.candidates_of(loaded, images=20)
    rows = [compressing.Row(candidate, 1.0, 1.0, 0) for candidate in candidates]
    chosen = next(row for row in rows if row.candidate.name == f"mean + 1, {experts}")
    run, path = tmp_path / "run", tmp_path / f"net{FORMATS[form].suffix}"
    compressing.write(str(run), loaded, rows, chosen, loaded.config)
    assert main(["export", f"--workdir={run}", f"--format={form}", f"--out={path}"]) == 0
    printed = capsys.readouterr().out
    assert "sparse routing saves no time in them" in printed
    assert "more than 1e-5" not in printed
    assert read_exported(path).metadata["experts"] == experts


@pytest.mark.parametrize("form", RUNTIMES)
def test_experts_rounded_by_export_are_said_to_be(form, trained, tmp_path):
    path = tmp_path / f"net{FORMATS[form].suffix}"
    arguments = ["export", f"--workdir={trained}", f"--format={form}", f"--out={path}"]
    assert main([*arguments, "--experts=int8"]) == 0
    assert read_exported(path).metadata["experts"] == "int8"


@pytest.mark.parametrize("form", RUNTIMES)
def test_compress_by_programs_of_a_format(form, trained, tmp_path, capsys):
    arguments = ["compress", f"--workdir={trained}", f"--out={tmp_path / 'run'}"]
    assert main([*arguments, f"--format={form}", "--max-loss=100"]) == 0
    assert f"latency of one picture as {form}" in capsys.readouterr().out


@pytest.mark.parametrize("form", RUNTIMES)
def test_a_batch_frozen_by_vmap_is_refused(form, trained, tmp_path, refused):
    path = tmp_path / f"net{FORMATS[form].suffix}"
    line = refused(
        "export",
        f"--workdir={trained}",
        f"--format={form}",
        f"--out={path}",
        "--config.model.method=reference",
    )
    assert "layer layer_14/depthwise cannot be written as" in line
    assert not path.exists()


@pytest.mark.parametrize("form", RUNTIMES)
def test_damaged_files(form, tmp_path):
    path = tmp_path / f"net{FORMATS[form].suffix}"
    path.write_bytes(b"no program")
    with pytest.raises(ValueError, match="file of condconv_jax"):
        read_exported(path)
