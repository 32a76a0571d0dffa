"""Whether an exported program computes what the network does, and which layer it is if not."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np


class IndistinctError(ValueError):
    """The pictures cannot tell one program from another: their outputs are all but the same."""


Outputs = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]

# The batch is free: one, two, and a number that is no multiple of any vector.
BATCHES = (1, 2, 7)
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where two runs differ most.

    Attributes:
      error: max |got - wanted| / max |wanted| of one output over one batch.
      output: its name.
      batch: examples of the batch.
    """

    error: float
    output: str
    batch: int

    def __str__(self) -> str:
        """Returns it in words."""
        return f"relative error {self.error:.1e} in {self.output!r} at batch {self.batch}"


def make_pictures(number: int, size: int, seed: int = 0) -> np.ndarray:
    """Returns pictures that route differently: soft fields of colour, each of its own contrast.

    Noise alone has the same mean features in all pictures, and would not show that one picture's
    kernels were used for another.

    Args:
      number: of pictures.
      size: pixels, height and width.
      seed: of all of them.

    Returns:
      uint8 (number, size, size, 3).
    """
    rng = np.random.default_rng(seed)
    place = np.linspace(0, 1, size)
    pictures = np.empty((number, size, size, 3))
    for picture in pictures:
        for channel in range(3):
            rows, columns = rng.uniform(0, 6, 2)
            phase = rng.uniform(0, 2 * np.pi)
            waves = np.sin(2 * np.pi * (rows * place[:, None] + columns * place[None]) + phase)
            level, contrast, grain = rng.uniform(40, 215), rng.uniform(0, 120), rng.uniform(0, 40)
            noise = rng.standard_normal((size, size))
            picture[..., channel] = level + contrast * waves + grain * noise
    return pictures.clip(0, 255).astype(np.uint8)


def largest_difference(
    run: Run, wanted: Outputs, pictures: np.ndarray, batches: Sequence[int] = BATCHES
) -> Difference:
    """Returns where the outputs of a program differ most from those wanted.

    Args:
      run: the program.
      wanted: outputs of all pictures together.
      pictures: uint8 (n, s, s, 3), n at least the largest batch.
      batches: how many of the pictures to pass at once, from the first on.

    Raises:
      IndistinctError: if the outputs of the pictures hardly differ.
      ValueError: if an output is missing or of another shape.
    """
    for name, values in wanted.items():
        spread = _relative(values, np.broadcast_to(values[:1], values.shape))
        if spread < 100 * TOLERANCE:
            raise IndistinctError(
                f"verify: {name!r} is the same for all pictures but for {spread:.0e}; nothing can "
                "be told by it"
            )
    worst = Difference(0.0, next(iter(wanted)), batches[0])
    for batch in batches:
        got = run(pictures[:batch])
        for name, values in wanted.items():
            if name not in got or got[name].shape != values[:batch].shape:
                shape = got[name].shape if name in got else None
                raise ValueError(
                    f"verify: {name!r} is {shape} at batch {batch}, wants {values[:batch].shape}"
                )
            error = _relative(values[:batch], got[name])
            if not error <= worst.error:  # NaN too
                worst = Difference(error, name, batch)
    return worst


def first_difference(
    run: Run, wanted: Outputs, pictures: np.ndarray, tolerance: float, batches=BATCHES
) -> Difference | None:
    """Returns the first of several outputs that differs by more than the tolerance.

    Args:
      run: the program.
      wanted: outputs in the order in which they are computed.
      pictures: as of `largest_difference`.
      tolerance: relative.
      batches: likewise.
    """
    got = {batch: run(pictures[:batch]) for batch in batches}
    for name, values in wanted.items():
        for batch in batches:
            error = _relative(values[:batch], got[batch][name])
            if not error <= tolerance:
                return Difference(error, name, batch)
    return None


def _relative(wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.shape != got.shape:
        return float("inf")
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    largest = np.abs(wanted).max(initial=0)
    return float(np.abs(got - wanted).max(initial=0) / largest) if largest else float(got.any())
