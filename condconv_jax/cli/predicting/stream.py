"""A video or a camera, frame by frame at batch 1, and how long each takes."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from condconv_jax.cli.predicting import latency
from condconv_jax.cli.predicting.inputs import View
from condconv_jax.cli.predicting.predictions import Prediction, Select
from condconv_jax.cli.predicting.predictor import PicturePredictor
from condconv_jax.data.decoding import CorruptSampleError

# Seconds between lines on stderr.
REPORT_EVERY = 5.0


@dataclass(frozen=True)
class StreamReport:
    """What a stream came to.

    Attributes:
      name: of the video or the camera.
      latencies: of its frames.
      seconds: from the first read to the last frame's output, which is within it.
      first_call: seconds of the network's first call, before that: it compiles.
      interrupted: whether it was ended by Ctrl-C.
      error: why the video ended early, if it did.
    """

    name: str
    latencies: latency.Latencies
    seconds: float
    first_call: float
    interrupted: bool = False
    error: str | None = None

    @property
    def rate(self) -> float:
        """Frames per second, output included."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def fields(self) -> dict[str, Any]:
        """Returns it as plain values: seconds, frames per second, milliseconds."""
        # To the microsecond; what is beyond is no measurement.
        milliseconds = {
            part: {key: None if ms is None else round(ms, 3) for key, ms in values.items()}
            for part, values in self.latencies.milliseconds().items()
        }
        return {
            "source": self.name,
            "frames": len(self.latencies),
            "seconds": round(self.seconds, 6),
            "frames_per_second": round(self.rate, 3),
            "first_call_seconds": round(self.first_call, 6),
            "interrupted": self.interrupted,
            "latency_ms": milliseconds,
            "percentiles": latency.DEFINITION,
        }

    def text(self) -> str:
        """Returns it as lines."""
        frames = len(self.latencies)
        ended = ", interrupted" if self.interrupted else ""
        lines = [
            f"{self.name}: {frames} frames in {self.seconds:.2f} s, {self.rate:.1f} frames/s"
            f"{ended}; first call, which compiles, {self.first_call:.2f} s before that",
        ]
        if frames:
            milliseconds = self.latencies.milliseconds()
            lines.append(latency.table(milliseconds))
            note = f"of {frames} frames; percentiles by {latency.DEFINITION}"
            missing = [name for name, value in milliseconds["total"].items() if value is None]
            if missing:
                note += f"; too few frames for {' and '.join(missing)}"
            lines.append(note)
        return "\n".join(lines)


def run_stream(
    predictor: PicturePredictor,
    views: Iterable[View],
    select: Select,
    show: Callable[[View, Prediction], None],
    *,
    name: str,
    size: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
) -> StreamReport:
    """Predicts frame by frame until the frames end or Ctrl-C, and says how long it took.

    A frame's latency is the time to read and prepare it, which of a camera includes waiting for
    it, and that of the network, until its results are in memory. To show them is outside of it.

    Args:
      predictor: the network.
      views: frames, read when they are asked for.
      select: what is told of the results.
      show: where it goes.
      name: of the video or the camera.
      size: height and width of the blank frame of the first call, pixels.
      clock: seconds.
    """
    start = clock()
    blank = predictor.prepare(np.zeros((*size, 3), np.uint8))
    predictor(blank[np.newaxis])
    first_call = clock() - start

    latencies, interrupted, error = latency.Latencies(), False, None
    recent = latency.Latencies()
    frames = iter(views)
    start = end = reported = clock()
    try:
        while True:
            asked = clock()
            try:
                view = next(frames, None)
            except CorruptSampleError as problem:
                error = str(problem)
                break
            if view is None:
                break
            image = predictor.prepare(view.image)[np.newaxis]
            ready = clock()
            results = predictor(image)
            took = ready - asked, clock() - ready
            latencies.add(*took)
            recent.add(*took)
            show(view, select(results, 0))
            end = clock()
            if end - reported >= REPORT_EVERY:
                # Of these seconds alone: to sort all frames so far would hold up the next.
                _report(len(latencies), recent, end - reported)
                recent, reported = latency.Latencies(), end
    except KeyboardInterrupt:
        # Of a camera it is the way to end.
        interrupted = True
    return StreamReport(name, latencies, end - start, first_call, interrupted, error)


def _report(frames: int, recent: latency.Latencies, seconds: float) -> None:
    parts = [
        f"{latency.title(part)} {latency.line(values)}"
        for part, values in recent.milliseconds().items()
    ]
    print(
        f"{frames} frames; in the last {seconds:.1f} s {len(recent) / seconds:.1f} frames/s, ms: "
        f"{'; '.join(parts)}",
        file=sys.stderr,
        flush=True,
    )
