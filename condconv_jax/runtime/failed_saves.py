"""Keeps what is left over of a save that failed from being printed as so many tracebacks."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def hush_failed_saves() -> None:
    """Leaves out what the writes of a failed save say once nobody waits for them any more.

    Orbax ends its event loop at the first array that could not be written, and `Checkpoints`
    raises that error. TensorStore then tells the closed loop of each of the others, whose
    RuntimeError Python would print, with its traceback, from a thread of C++. For programs whose
    user is to read one line; everything else is printed as before. A second call does nothing.
    """
    if isinstance(sys.unraisablehook, _Hook):
        return
    sys.unraisablehook = _Hook(sys.unraisablehook)
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)


class _Hook:
    def __init__(self, print_it: Any):
        self._print_it = print_it

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._print_it(unraisable)
