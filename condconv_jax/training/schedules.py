"""Learning rates over steps."""

import jax.numpy as jnp
import optax

from condconv_jax.names import unknown_name

SCHEDULES = ("cosine", "exponential", "constant")


def make_schedule(
    name: str,
    peak: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    decay_rate: float = 0.97,
    decay_steps: float = 1.0,
) -> optax.Schedule:
    """Returns a learning rate that rises in a straight line to `peak` and then falls.

    "cosine" falls by half a cosine to 0 at the last step; "exponential" in stairs, peak *
    decay_rate ** floor(step / decay_steps), whose stairs are counted from the first step of the
    run, not from the end of the warm-up; "constant" stays.

    Args:
      name: one of `SCHEDULES`.
      peak: the highest learning rate.
      total_steps: steps in all, warm-up included.
      warmup_steps: steps of the warm-up.
      decay_rate: of "exponential", of one stair to the next.
      decay_steps: of "exponential", steps of a stair; need not be whole.

    Raises:
      ValueError: for an unknown name, a rate below 0, a warm-up that leaves no step, or stairs that
        lead nowhere.

    Source: Loshchilov and Hutter, arXiv 1608.03983; warm-up: Goyal et al., arXiv 1706.02677;
      stairs: tensorflow/tpu, models/official/efficientnet/utils.py (build_learning_rate).
    """
    if name not in SCHEDULES:
        raise unknown_name("make_schedule", "schedule", name, SCHEDULES)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"make_schedule: {warmup_steps} warm-up steps of {total_steps} in all; shorten the "
            "warm-up (schedule.warmup_epochs) or train for longer"
        )
    if not peak >= 0:
        raise ValueError(f"make_schedule: the learning rate is {peak}; pass 0 or more")
    if name == "exponential" and not (0 < decay_rate <= 1 and decay_steps > 0):
        raise ValueError(
            f"make_schedule: decay_rate is {decay_rate}, decay_steps {decay_steps}; pass a rate of "
            "more than 0 to 1, and a positive number of steps (schedule.decay_epochs)"
        )
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup_steps else peak, peak, warmup_steps, total_steps
        )

    def learning_rate(step):
        step = jnp.asarray(step, jnp.float32)
        rising = peak * step / max(warmup_steps, 1)
        stairs = jnp.floor(step / decay_steps) if name == "exponential" else 0.0
        return jnp.where(step < warmup_steps, rising, peak * decay_rate**stairs)

    return learning_rate
