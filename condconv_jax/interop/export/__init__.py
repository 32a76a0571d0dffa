"""Trained networks as programs for other runtimes: StableHLO, ONNX, LiteRT, with a free batch."""

from condconv_jax.interop.export.formats import (
    FORMATS,
    Reference,
    Written,
    export_program,
    find_format,
    read_exported,
    require,
)
from condconv_jax.interop.export.program import INPUT, Exported, Program

__all__ = [
    "FORMATS",
    "INPUT",
    "Exported",
    "Program",
    "Reference",
    "Written",
    "export_program",
    "find_format",
    "read_exported",
    "require",
]
