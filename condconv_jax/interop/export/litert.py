"""LiteRT (.tflite) by jax2tf and TensorFlow's converter, run by LiteRT's interpreter.

A file has two signatures over one set of weights, `any_batch` and `batch_1`. The latter is many
times as fast: with a batch of any size the converter leaves every broadcast explicit, and LiteRT's
fast kernels do not take tensors without a size.
"""

import contextlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from condconv_jax.interop.export.program import INPUT, Exported, Function

ANY, ONE = "any_batch", "batch_1"
# TensorFlow Lite's own way to metadata: files in a zip archive behind the program.
_METADATA = "condconv_jax.json"


def write(function: Function, image_size: int, metadata: Mapping[str, Any], path: Path) -> None:
    """Writes a function of pictures with a free batch; args as of `stablehlo.write`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from jax.experimental import jax2tf

    shape = (image_size, image_size, 3)

    def traced(batch: int | None) -> Any:
        size = "b" if batch is None else str(batch)
        converted = jax2tf.convert(
            lambda images: dict(function(images)),
            polymorphic_shapes=[f"({size}, {image_size}, {image_size}, 3)"],
            with_gradient=False,
        )
        signature = [tf.TensorSpec((batch, *shape), tf.uint8, name=INPUT)]
        return tf.function(converted, autograph=False, input_signature=signature)

    module = tf.Module()
    module.any, module.one = traced(None), traced(1)
    signatures = {
        ANY: module.any.get_concrete_function(),
        ONE: module.one.get_concrete_function(),
    }
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[ANY, ONE])
        program = converter.convert()
    path.write_bytes(program)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(_METADATA, json.dumps(dict(metadata), indent=1))


def read(path: Path, threads: int | None = None) -> Exported:
    """Reads what `write` wrote.

    Args:
      path: of the file.
      threads: of the interpreter; None for its own choice.

    Raises:
      ValueError: if it is no such file.
    """
    from ai_edge_litert import interpreter as litert

    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            metadata = json.loads(file.read(_METADATA))
        interpreter = litert.Interpreter(model_content=content, num_threads=threads)
        runners = {name: interpreter.get_signature_runner(name) for name in (ANY, ONE)}
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a LiteRT file of condconv_jax: {error}") from error

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        runner = runners[ONE if len(images) == 1 else ANY]
        return {name: np.array(value) for name, value in runner(**{INPUT: images}).items()}

    runtime = f"ai-edge-litert {_version()}"
    return Exported(run, metadata, runtime, any_size=True, one_by_one=True)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    with contextlib.suppress(PackageNotFoundError):
        return version("ai-edge-litert")
    return ""
