"""A request to stop: SIGTERM or Ctrl-C, noticed between two steps, in all processes at the same.

What a scheduler sends before it takes a machine away. The first signal asks for a stop at the next
place where the work can be saved; the second ends the process at once, as if this were not here.
A signal waits while XLA compiles: Python's handlers run between two bytecodes.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequests:
    """Whether the run was asked to stop; a context manager that listens meanwhile.

    In one process it handles the signals itself, if it is entered in the main thread: Python
    allows handlers nowhere else, and without them signals do what they did before. In a run of
    several processes JAX's service hears SIGTERM, spreads it, and has all of them stop at the same
    call of `reached`; Ctrl-C in one is passed on to it. A second SIGTERM to a process of several
    changes nothing, a second Ctrl-C interrupts.

    Attributes:
      name: of the first signal this process was sent, such as "SIGTERM". A process that stops
        because another was told to has none of its own and says "SIGTERM" too.
    """

    def __init__(self) -> None:
        self.name = signal.SIGTERM.name
        self._several = jax.process_count() > 1
        self._asked = False
        self._calls = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Starts to listen."""
        if threading.current_thread() is threading.main_thread():
            # JAX's service has its own handler of SIGTERM, which ours would replace.
            for number in (signal.SIGINT,) if self._several else SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives the signals back to whoever handled them before."""
        self._restore()

    def reached(self) -> bool:
        """Returns whether to stop now; the same in all processes.

        With several processes each of them must make the same calls in the same order. After the
        first True there may be no further call.
        """
        if not self._several:
            return self._asked
        # Not the training step: an evaluation asks several times within one.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked, self.name = True, signal.Signals(number).name
        # The second time, what was there before is in charge again.
        self._restore()
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
