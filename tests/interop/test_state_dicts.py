"""Arrays by name in files, and files that hold something else."""

import importlib
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.interop import read_state_dict, write_safetensors

NEEDS_TORCH = ".pth files need torch: install the extra `parity`"
STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.running_var": np.linspace(0, 1, 5),
    "half": np.array([1.5, -2, 65504], np.float16),
    "brain": np.array([1.5, -3, 3e38], jnp.bfloat16),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason=NEEDS_TORCH)


def assert_same(got, want):
    assert got.keys() == want.keys()
    for key, array in got.items():
        assert isinstance(array, np.ndarray)
        assert array.dtype == want[key].dtype, key
        np.testing.assert_array_equal(array, want[key], strict=True)


def refusal(path):
    """The one line by which a file is refused."""
    with pytest.raises(ValueError, match=r"^read_state_dict: ") as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# safetensors


def test_safetensors_there_and_back(tmp_path):
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    write_safetensors(path, STATE)
    assert_same(read_state_dict(path), STATE)
    assert_same(read_state_dict(str(path)), STATE)


def test_what_is_not_in_order_in_memory_is_in_the_file(tmp_path):
    state = {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(10.0)[::2],
        "backward": np.arange(4.0)[::-1],
        "scalar": np.float32(3),
    }
    write_safetensors(tmp_path / "a.safetensors", state)
    assert_same(read_state_dict(tmp_path / "a.safetensors"), state)


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", STATE)
    write_safetensors(tmp_path / "b.safetensors", dict(reversed(STATE.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_format_by_hand(tmp_path):
    """Eight bytes of length, JSON, numbers: as its specification says."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -2))
    assert_same(read_state_dict(path), {"x": np.array([[1.5], [-2]], np.float32)})


@pytest.mark.parametrize("name", ["weights.pth", "weights", "weights.safetensors.tmp"])
def test_another_suffix_is_refused_on_writing(name, tmp_path):
    with pytest.raises(ValueError, match=rf"^write_safetensors: .*{name} must end in .safetensors"):
        write_safetensors(tmp_path / name, STATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 4, 8, 30, -1])
def test_truncated_safetensors(size, tmp_path):
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, STATE)
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path} is no safetensors file: " in refusal(path)


@pytest.mark.parametrize(
    "content", [b"\x80\x02}q\x00.", b"a" * 100, struct.pack("<Q", 3) + b"{]}", b"\xff" * 64]
)
def test_damaged_safetensors(content, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert "is no safetensors file" in refusal(path)


@pytest.mark.parametrize("name", ["no.safetensors", "no.pth"])
def test_no_file(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^read_state_dict: no file .*{name}$"):
        read_state_dict(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="no file"):
        read_state_dict(tmp_path / name)


def test_the_prefix_of_several_devices(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {"module.conv.weight": np.ones(2), "submodule.bias": np.zeros(1)})
    assert_same(read_state_dict(path), {"conv.weight": np.ones(2), "submodule.bias": np.zeros(1)})


# Packages that are not there.


def without(monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError):
        importlib.import_module(package)


def test_without_safetensors(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, STATE)
    without(monkeypatch, "safetensors")
    for call in (lambda: read_state_dict(path), lambda: write_safetensors(path, STATE)):
        with pytest.raises(ImportError, match=r"safetensors is not .*'condconv_jax\[convert\]'"):
            call()


def test_without_torch(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    # Not unloaded, where it was loaded: torch cannot be loaded twice.
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"weights.pth needs torch, .*; pip install torch, or"):
        read_state_dict(path)


# PyTorch's files


def tensors(torch, state=STATE):
    """The arrays as torch's."""
    return {
        key: torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype == jnp.bfloat16
        else torch.from_numpy(array)
        for key, array in state.items()
    }


@pytest.mark.parametrize("name", ["weights.pth", "weights.pth.tar", "weights.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch(name, zipped, torch, tmp_path):
    torch.save(tensors(torch), tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_same(read_state_dict(tmp_path / name), STATE)


def test_parameters_views_and_shared_numbers(torch, tmp_path):
    base = torch.arange(12.0)
    saved = {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": base.reshape(3, 4).T,
        "part": base[3:5],
        "same": base,
        "brain": base.reshape(3, 4).T.to(torch.bfloat16),
        "brain parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    }
    torch.save(saved, tmp_path / "weights.pth")
    got = read_state_dict(tmp_path / "weights.pth")
    numbers = np.arange(12, dtype=np.float32)
    want = {
        "parameter": np.ones(2, np.float32),
        "view": numbers.reshape(3, 4).T,
        "part": numbers[3:5],
        "same": numbers,
        "brain": numbers.reshape(3, 4).T.astype(jnp.bfloat16),
        "brain parameter": np.ones(2, jnp.bfloat16),
    }
    assert_same(got, want)


def test_a_module_s_state_dict(torch, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    got = read_state_dict(tmp_path / "weights.pth")
    assert_same(got, {key: value.numpy() for key, value in module.state_dict().items()})


def numbered(torch, number):
    return {"module.x": torch.full((1,), float(number))}


@pytest.mark.parametrize(
    ("wrap", "want"),
    [
        (lambda n: {"state_dict": n(1), "epoch": 3, "arch": "b0", "metric": None}, 1),
        (lambda n: {"state_dict": n(1), "state_dict_ema": n(2), "version": 2}, 2),
        (lambda n: {"state_dict_ema": n(2), "state_dict": n(1)}, 2),
        (lambda n: {"state_dict_ema": None, "state_dict": n(1)}, 1),
        (lambda n: {"model": n(1), "optimizer": {"state": {}, "param_groups": []}}, 1),
        (lambda n: {"model": n(1), "model_ema": n(2)}, 2),
        (lambda n: {"model_ema": {"module": n(3)}, "model": n(1)}, 3),
        (lambda n: n(4), 4),
    ],
)
def test_what_scripts_wrap_around_a_state_dict(wrap, want, torch, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(wrap(lambda number: numbered(torch, number)), path)
    assert_same(read_state_dict(path), {"x": np.array([want], np.float32)})


@pytest.mark.parametrize(
    "saved",
    [
        lambda torch: [torch.ones(2)],
        lambda torch: torch.ones(2),
        lambda torch: {"a": torch.ones(2), "b": 3},
        lambda torch: {"state_dict": {"a": [torch.ones(2)]}},
        lambda torch: {0: torch.ones(2)},
        lambda torch: "weights",
    ],
)
def test_files_of_torch_without_tensors_by_name(saved, torch, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(saved(torch), path)
    assert refusal(path).endswith("holds no tensors by name; save model.state_dict()")


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "sparse"])
def test_tensors_that_numpy_has_not(dtype, torch, tmp_path):
    path = tmp_path / "weights.pth"
    tensor = torch.ones(2, 2)
    tensor = tensor.to_sparse() if dtype == "sparse" else tensor.to(getattr(torch, dtype))
    torch.save({"x": tensor}, path)
    assert "holds more than plain tensors: " in refusal(path)


class Trap:
    """Makes a file when it is unpickled by whoever executes what a pickle says."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def in_torch_s_archive(content):
    """Where `torch.save` puts a pickle."""

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", content)
            archive.writestr("weights/version", "3\n")
            archive.writestr("weights/byteorder", "little")

    return write


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrap", [lambda trap: trap, lambda trap: {"state_dict": {"x": trap}}])
def test_code_in_a_file_is_refused_and_not_executed(wrap, protocol, zipped, torch, tmp_path):
    touched = tmp_path / "touched"
    content = pickle.dumps(wrap(Trap(touched)), protocol)
    pickle.loads(content)
    assert touched.exists()  # the trap works
    touched.unlink()
    path = tmp_path / "weights.pth"
    (in_torch_s_archive(content) if zipped else lambda p: p.write_bytes(content))(path)
    line = refusal(path)
    assert line.endswith("nothing in it was executed, save model.state_dict()")
    # torch's own message says how to execute it.
    assert "weights_only" not in line
    assert not touched.exists()


def test_a_whole_module_is_refused(torch, tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Conv2d(1, 1, 1), path)
    line = refusal(path)
    assert "holds torch.nn.modules.conv.Conv2d, more than weights; nothing in it was" in line


@pytest.mark.parametrize("size", [0, 1, 10, 200, -50])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_of_torch(size, zipped, torch, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(tensors(torch), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path} is no file of weights" in refusal(path)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80\x02.", b"\x89PNG" * 20, bytes(99)])
def test_damaged_files_of_torch(content, torch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert f"{path} is no file of weights" in refusal(path)


def test_safetensors_under_another_name(torch, tmp_path):
    write_safetensors(tmp_path / "a.safetensors", STATE)
    path = (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    assert "is no file of weights" in refusal(path)
