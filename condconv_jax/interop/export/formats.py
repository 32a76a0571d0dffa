"""The formats, and a program into one of them and back, checked on the way."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from condconv_jax.interop.export import litert, onnx, stablehlo
from condconv_jax.interop.export.program import Exported, Function, Program
from condconv_jax.interop.export.verify import (
    BATCHES,
    TOLERANCE,
    Difference,
    Outputs,
    first_difference,
    largest_difference,
    make_pictures,
)
from condconv_jax.names import unknown_name


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
      suffix: of its files.
      method: of `ops.cond_conv`, in the programs that become one.
      write: (function, image size, metadata, path).
      read: (path, threads) -> the program.
      modules: what it needs to be written and to be run, beside this package's own needs.
    """

    suffix: str
    method: str
    write: Callable[[Function, int, Mapping[str, Any], Path], None]
    read: Callable[[Path, int | None], Exported]
    modules: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "stablehlo": Format(".stablehlo", "portable", stablehlo.write, stablehlo.read),
    "onnx": Format(".onnx", "translated", onnx.write, onnx.read, ("jax2onnx", "onnxruntime")),
    "litert": Format(
        ".tflite", "translated", litert.write, litert.read, ("tensorflow", "ai_edge_litert")
    ),
}


def find_format(name: str) -> Format:
    """Returns a format by its name.

    Raises:
      ValueError: for an unknown name, listing the choices.
    """
    if name not in FORMATS:
        raise unknown_name("export", "format", name, FORMATS)
    return FORMATS[name]


def read_exported(path: str | Path, *, threads: int | None = None) -> Exported:
    """Returns the program in a file, ready to run.

    Args:
      path: of a file that `export_program` wrote; its suffix tells the format.
      threads: of the runtime, where it takes a number; None for its own choice.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if it is none of the formats.
      ImportError: without the format's runtime.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no exported program {str(path)!r}")
    for form in FORMATS.values():
        if path.suffix == form.suffix:
            return form.read(path, threads)
    suffixes = ", ".join(form.suffix for form in FORMATS.values())
    raise ValueError(f"{path}: suffix {path.suffix!r}; exported programs have {suffixes}")


@dataclasses.dataclass(frozen=True)
class Written:
    """An exported program that was checked.

    Attributes:
      path: of the file.
      difference: the largest from the network.
      tolerance: what was allowed.
      runtime: that ran it.
    """

    path: Path
    difference: Difference
    tolerance: float
    runtime: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the network itself computes.

    Attributes:
      outputs: pictures -> all outputs, as `Program.function`.
      layers: as `Program.layers`.
      rounding: () -> the relative error of the network's own float32, measured only if asked.
    """

    outputs: Callable[[Any], Outputs]
    layers: Callable[[Any], Outputs]
    rounding: Callable[[], float]


def export_program(
    program: Program, reference: Reference, name: str, path: str | Path, *, seed: int = 0
) -> Written:
    """Writes a program, runs the file in the runtime of its format and compares.

    At batch 1, 2 and 7, with pictures that differ; the file gets its name only when all outputs
    agree with the network's within TOLERANCE, relative to the largest of an output. A network
    whose own float32 is further than that from float64 is given twice that distance.

    Args:
      program: what to write, made with the format's method.
      reference: what to compare with.
      name: of the format.
      path: of the file, which may exist.
      seed: of the pictures.

    Raises:
      ValueError: if it differs, or cannot be written, with the name of the first layer of which
        that is true.
      ImportError: without what writes and runs the format.
    """
    form, path = find_format(name), Path(path)
    require(name)
    pictures = make_pictures(max(BATCHES), program.image_size, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{form.suffix}")
    try:
        try:
            form.write(program.function, program.image_size, program.metadata, temporary)
        except ImportError:
            raise
        except Exception as error:  # whatever the converters raise
            layer = _first_unwritable(program, form, temporary)
            raise ValueError(
                f"export: {layer} cannot be written as {name}: {type(error).__name__}: "
                f"{_first_line(error)}"
            ) from error
        exported = form.read(temporary, None)
        wanted, tolerance = reference.outputs(pictures), TOLERANCE
        difference = _compare(exported, wanted, pictures)
        if not difference.error <= tolerance:
            tolerance = max(tolerance, 2 * reference.rounding())
        if not difference.error <= tolerance:
            at = _first_wrong(program, reference, form, temporary, pictures, tolerance)
            raise ValueError(
                f"export: the {name} program differs from the network, {difference}; {at}; nothing "
                "was written"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(path, difference, tolerance, exported.runtime)


def require(name: str) -> None:
    """Raises ImportError where what writes and runs a format is not installed."""
    from importlib.util import find_spec

    missing = [module for module in find_format(name).modules if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"export: {name} needs {' and '.join(missing)}; `make export-env` makes an environment "
            "that has them (docs/deploy.md)"
        )


def _compare(exported: Exported, wanted: Outputs, pictures: Any) -> Difference:
    try:
        return largest_difference(exported.run, wanted, pictures)
    except ValueError:
        raise
    except Exception as error:  # of the runtime, which may refuse its own converter's program
        return Difference(float("inf"), f"{type(error).__name__}: {_first_line(error)}", 0)


def _first_wrong(
    program: Program,
    reference: Reference,
    form: Format,
    path: Path,
    pictures: Any,
    tolerance: float,
) -> str:
    """Names the first layer whose output differs, of a program that returns them all."""
    wanted = reference.layers(pictures)
    try:
        form.write(program.layers, program.image_size, {}, path)
        found = first_difference(form.read(path, None).run, wanted, pictures, tolerance)
    except Exception as error:
        return f"its layers could not be compared: {type(error).__name__}: {_first_line(error)}"
    return f"the first layer to differ is {found.output}: {found}" if found else "its layers agree"


def _first_unwritable(program: Program, form: Format, path: Path) -> str:
    """Names the first layer up to which a program cannot be written, found by halving."""
    import jax

    shape = (1, program.image_size, program.image_size, 3)
    names = list(jax.eval_shape(program.layers, jax.ShapeDtypeStruct(shape, "uint8")))

    def fails(index: int) -> bool:
        def function(images: Any) -> dict[str, Any]:
            return {"output": program.until(images, names[index])}

        try:
            form.write(function, program.image_size, {}, path)
        except Exception:
            return True
        return False

    low, high = 0, len(names)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle + 1, high)
    return f"layer {names[low]}" if low < len(names) else "what follows the last layer"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""
