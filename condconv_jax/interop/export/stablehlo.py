"""StableHLO by `jax.export`, in a zip file beside its metadata."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from condconv_jax.interop.export.program import INPUT, Exported, Function

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PROGRAM, _METADATA = "program.jax_export", "metadata.json"


def write(function: Function, image_size: int, metadata: Mapping[str, Any], path: Path) -> None:
    """Writes a function of pictures with a free batch.

    Args:
      function: uint8 (b, s, s, 3) -> outputs by name.
      image_size: s.
      metadata: what JSON can hold.
      path: of the file.
    """
    shape = export.symbolic_shape(f"b, {image_size}, {image_size}, 3")
    specification = jax.ShapeDtypeStruct(shape, jnp.uint8)
    named = jax.jit(lambda images: dict(function(images)))
    serialized = export.export(named, platforms=PLATFORMS)(specification).serialize()
    # Stored, not deflated: weights hardly shrink.
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(_METADATA, json.dumps({**metadata, "input_name": INPUT}, indent=1))
        file.writestr(_PROGRAM, bytes(serialized))


def read(path: Path, threads: int | None = None) -> Exported:
    """Reads what `write` wrote; it is compiled anew for each size of the batch.

    Args:
      path: of the file.
      threads: not known to XLA, which takes all cores that the process may use.

    Raises:
      ValueError: if it is no such file.
    """
    del threads
    try:
        with zipfile.ZipFile(path) as file:
            metadata = json.loads(file.read(_METADATA))
            serialized = file.read(_PROGRAM)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not an exported StableHLO program: {error}") from error
    try:
        program = jax.jit(export.deserialize(bytearray(serialized)).call)
    except Exception as error:  # whatever its decoder runs into, which says nothing of files
        raise ValueError(
            f"{path}: JAX {jax.__version__} cannot read the program in it: {error}; export it "
            "again, or use the JAX that it was written with"
        ) from error

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return jax.device_get(program(images))

    return Exported(run, metadata, f"jax {jax.__version__}")
