"""PyTorch state dicts on disk: arrays by name, never code."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# What training scripts wrap a state dict in, in the order in which they are looked for; timm's own
# keeps moving averages beside the weights and evaluates those.
WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model", "module")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a .safetensors file or of a PyTorch file that holds nothing else.

    Nothing in the file is executed: PyTorch files are read by torch's weights-only unpickler, which
    refuses whatever is not tensors and plain containers.

    Args:
      path: ".safetensors", or any other suffix for a PyTorch file, whose reading needs torch.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged, or holds anything but arrays by name.
      ImportError: if the package that reads it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_state_dict: no file {path}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    # Written by a network that was wrapped for several devices.
    return {key.removeprefix("module."): array for key, array in state.items()}


def write_safetensors(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name to a .safetensors file, which torch and timm load.

    Raises:
      ValueError: if the suffix is another.
      ImportError: if safetensors is not installed.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"write_safetensors: {path} must end in .safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The library writes memory as it lies, whatever the strides.
    ordered = {key: np.asarray(array, order="C") for key, array in state.items()}
    _safetensors().save_file(ordered, path)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "the package safetensors is not installed; pip install 'condconv_jax[convert]'"
        ) from error
    return safetensors.numpy


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    library = _safetensors()
    try:
        return library.load_file(path)
    except Exception as error:  # the library's own, of Rust
        raise ValueError(f"read_state_dict: {path} is no safetensors file: {error}") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs torch, which is not installed; pip install torch, or convert "
            "it to .safetensors elsewhere"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes its unpickler run into
        # torch's message is an invitation to execute it after all; what matters is the name in it.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds {named[1]}, more than weights" if named else "is no file of weights"
        raise ValueError(
            f"read_state_dict: {path} {what}; nothing in it was executed, save model.state_dict()"
        ) from error
    while isinstance(found, dict) and (
        key := next((k for k in WRAPPERS if found.get(k) is not None), None)
    ):
        found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    ):
        raise ValueError(
            f"read_state_dict: {path} holds no tensors by name; save model.state_dict()"
        )
    try:
        return {key: _to_numpy(tensor) for key, tensor in found.items()}
    except (RuntimeError, TypeError) as error:  # sparse, quantised, or of 8 bits
        raise ValueError(
            f"read_state_dict: {path} holds more than plain tensors: {error}"
        ) from error


def _to_numpy(tensor: Any) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:  # which NumPy does not know
        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()
