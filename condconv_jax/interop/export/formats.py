"""The formats, and a program into one of them and back, checked on the way."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from condconv_jax.interop.export import litert, onnx, stablehlo
from condconv_jax.interop.export.program import Exported, Function, Program
from condconv_jax.interop.export.verify import (
    BATCHES,
    TOLERANCE,
    Difference,
    IndistinctError,
    Outputs,
    first_difference,
    largest_difference,
    make_pictures,
)
from condconv_jax.names import unknown_name

# Of a network that is less exact than TOLERANCE. One picture's kernels used for another are off by
# a hundred times as much.
LARGEST_TOLERANCE = 1e-3


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

    def try_to_write(self, function: Function, image_size: int, path: Path) -> None:
        """Writes a function of pictures, or raises what the format's converter does."""
        self.write(function, image_size, {}, path)

    def try_to_run(self, function: Function, image_size: int, path: Path) -> None:
        """Writes a function of pictures and runs it, or raises what the runtime does.

        Raises:
          ValueError: if the batch of an output is not that of the pictures.
        """
        self.write(function, image_size, {}, path)
        run = self.read(path, None).run
        for batch in BATCHES:
            for output, values in run(make_pictures(batch, image_size)).items():
                if len(values) != batch:
                    raise ValueError(f"{output!r} is {values.shape} at batch {batch}")


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
    whose own float32 is further than that from float64 is given twice that distance, up to
    LARGEST_TOLERANCE.

    Args:
      program: what to write, made with the format's method.
      reference: what to compare with.
      name: of the format.
      path: of the file, which may exist.
      seed: of the pictures.

    Raises:
      ValueError: if it differs, or cannot be written or run, with the name of the first layer of
        which that is true.
      ImportError: without what writes and runs the format.
    """
    form, path = find_format(name), Path(path)
    require(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{form.suffix}")
    try:
        with _naming(program, form, temporary, f"be written as {name}", form.try_to_write):
            form.write(program.function, program.image_size, program.metadata, temporary)
        # A GPU rounds products of float32 to fewer bits, too few to tell by 1e-5.
        with jax.default_device(jax.devices("cpu")[0]):
            difference, tolerance, runtime = _checked(program, reference, name, temporary, seed)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(path, difference, tolerance, runtime)


def _checked(
    program: Program, reference: Reference, name: str, path: Path, seed: int
) -> tuple[Difference, float, str]:
    """What a file differs from the network by, what was allowed, and the runtime that ran it.

    Raises:
      ValueError: as `export_program`, if it cannot be run or differs by more.
    """
    form, pictures = find_format(name), make_pictures(max(BATCHES), program.image_size, seed)
    wanted, tolerance = reference.outputs(pictures), TOLERANCE
    with _naming(program, form, path, f"be run as {name}", form.try_to_run):
        exported = form.read(path, None)
        difference = largest_difference(exported.run, wanted, pictures)
    if not difference.error <= tolerance:
        tolerance = max(tolerance, min(2 * reference.rounding(), LARGEST_TOLERANCE))
    if not difference.error <= tolerance:
        at = _first_wrong(program, reference, form, path, pictures, tolerance)
        raise ValueError(
            f"export: the {name} program differs from the network, {difference}; {at}; nothing "
            "was written"
        )
    return difference, tolerance, exported.runtime


def require(name: str) -> None:
    """Raises ImportError where what writes and runs a format is not installed."""
    from importlib.util import find_spec

    missing = [module for module in find_format(name).modules if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"export: {name} needs {' and '.join(missing)}; `make export-env` makes an environment "
            "that has them (docs/deploy.md)"
        )


@contextlib.contextmanager
def _naming(
    program: Program, form: Format, path: Path, what: str, attempt: Callable[..., None]
) -> Iterator[None]:
    """Turns whatever converters and runtimes raise into an error that names the first such layer.

    Args:
      program: that is written.
      form: to this format.
      path: of a file to try parts of the program in.
      what: cannot be done.
      attempt: (function, image size, path), which raises where that is so of a part.
    """
    try:
        yield
    except (ImportError, IndistinctError):
        raise
    except Exception as error:
        layer = _first_failing(program, path, attempt)
        raise ValueError(
            f"export: {layer} cannot {what}: {type(error).__name__}: {_first_line(error)}"
        ) from error


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


def _first_failing(program: Program, path: Path, attempt: Callable[..., None]) -> str:
    """Names the first layer up to which an attempt fails, found by halving."""
    shape = (1, program.image_size, program.image_size, 3)
    names = list(jax.eval_shape(program.layers, jax.ShapeDtypeStruct(shape, "uint8")))

    def fails(index: int) -> bool:
        def function(images: Any) -> dict[str, Any]:
            return {"output": program.until(images, names[index])}

        try:
            attempt(function, program.image_size, path)
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
