"""One report of all that is wrong with weights, so that nobody mends them key by key."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np


def refuse_misfits(
    heading: str, problems: Sequence[str], converted: Mapping[str, np.ndarray], advice: str
) -> None:
    """Raises what is wrong with weights, if anything is.

    Args:
      heading: what does not fit what.
      problems: one for each key that is missing, extra or of another shape.
      converted: the arrays that fit, by our path; those that are not finite are problems too.
      advice: what to do.

    Raises:
      ValueError: with every problem on a line of its own.
    """
    infinite = [
        f"{path}: has values that are not finite"
        for path, array in converted.items()
        if jnp.issubdtype(array.dtype, jnp.floating)
        and not np.isfinite(array.astype(np.float32)).all()
    ]
    lines = [f"  {problem}" for problem in [*problems, *infinite]]
    if lines:
        raise ValueError("\n".join([f"{heading}:", *lines, advice]))
