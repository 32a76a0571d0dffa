"""ONNX by jax2onnx, run by ONNX Runtime."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from condconv_jax.interop.export.program import INPUT, Exported, Function

# Of what a network needs here, all is in it; ONNX Runtime since 1.18 has it whole.
OPSET = 21
_KEY = "condconv_jax"


def write(function: Function, image_size: int, metadata: Mapping[str, Any], path: Path) -> None:
    """Writes a function of pictures with a free batch; args as of `stablehlo.write`."""
    import jax2onnx

    names: list[str] = []

    def positional(images: Any) -> tuple[Any, ...]:
        outputs = function(images)
        names[:] = outputs
        return tuple(outputs.values())

    specification = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.uint8)
    jax.eval_shape(positional, specification)
    # It warns of each value whose type it leaves to be inferred.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    batch = jax.ShapeDtypeStruct(
        jax.export.symbolic_shape(f"b, {image_size}, {image_size}, 3"), jnp.uint8
    )
    model = jax2onnx.to_onnx(
        positional,
        inputs=[batch],
        model_name=metadata.get("network", "condconv"),
        opset=OPSET,
        input_names=[INPUT],
        output_names=names,
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps(dict(metadata))
    path.write_bytes(model.SerializeToString())


def read(path: Path, threads: int | None = None) -> Exported:
    """Reads what `write` wrote.

    Args:
      path: of the file.
      threads: of ONNX Runtime; None for one per core.

    Raises:
      ValueError: if it is no such file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of shapes that it infers in two ways
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = json.loads(session.get_modelmeta().custom_metadata_map[_KEY])
    except Exception as error:  # its errors have no class in common
        raise ValueError(f"{path}: not an ONNX file of condconv_jax: {error}") from error
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

    return Exported(run, metadata, f"onnxruntime {onnxruntime.__version__}", any_size=True)
