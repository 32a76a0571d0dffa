"""OpenCV, of the extra `fast-data`: imported when it is first needed."""

import functools
import importlib
import os
from typing import Any


@functools.cache
def import_opencv() -> Any:
    """Returns the module cv2, without threads of its own; None where it is not installed."""
    # Complaints of OpenCV and FFmpeg lack the name of the file; errors of ours have it.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        return None
    cv2.setNumThreads(0)  # the pipeline has its own, one for each core
    return cv2


def require_opencv(what: str) -> Any:
    """Returns the module cv2.

    Args:
      what: that needs it, as the message begins.

    Raises:
      ImportError: naming the extra, where it is not installed.
    """
    cv2 = import_opencv()
    if cv2 is None:
        raise ImportError(
            f"{what} needs OpenCV, which is not installed; install the extra with "
            "pip install 'condconv_jax[fast-data]'"
        )
    return cv2
