"""Learning rates over steps."""

import optax


def warmup_cosine(peak: float, *, total_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """Returns a linear warm-up to `peak`, then half a cosine down to 0.

    Args:
      peak: the highest learning rate.
      total_steps: steps in all, warm-up included.
      warmup_steps: steps of the warm-up.

    Raises:
      ValueError: if the warm-up leaves no step.

    Source: Loshchilov and Hutter, arXiv 1608.03983; warm-up: Goyal et al., arXiv 1706.02677.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_cosine: {warmup_steps} warm-up steps of {total_steps} in all; shorten the "
            "warm-up or train for longer"
        )
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else peak, peak, warmup_steps, total_steps
    )
