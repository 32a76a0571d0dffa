"""The notebook runs against a checkpoint, and what is committed of it is fit to be read."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path("experiments/notebooks/routing.ipynb")


def test_every_cell_runs_against_a_trained_network(trained, tmp_path, monkeypatch):
    reason = "install the extra: pip install 'condconv_jax[notebooks]'"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    monkeypatch.setenv("CONDCONV_WORKDIR", str(trained))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # Raises the error of the first cell that has one.
    nbclient.NotebookClient(
        notebook, timeout=250, resources={"metadata": {"path": str(Path.cwd())}}
    ).execute()
    text = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "step 4, 20 images of 10 classes" in text
    assert "layer_14, expert 1:" in text
    assert "of 20 images" in text
    kinds = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", ())
        if kind.startswith("image/")
    ]
    assert kinds.count("image/png") == kinds.count("image/svg+xml") == 2


def test_what_is_committed_was_run_from_top_to_bottom():
    cells = [
        cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_what_is_committed_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text()
    assert len(text) < 1_000_000
    assert not re.search(r"/(home|root|tmp|work|Users|usr)/", text)
    assert set(json.loads(text)["metadata"]) == {"kernelspec", "language_info"}
