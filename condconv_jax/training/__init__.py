"""The loop that trains any task over a mesh (floor 4)."""

from condconv_jax.training.evaluation import evaluate, make_eval_fn, together
from condconv_jax.training.finetuning import outside, transfer
from condconv_jax.training.loop import LoopSettings, StoppedError, train
from condconv_jax.training.optimizers import OPTIMIZERS, make_optimizer
from condconv_jax.training.schedules import SCHEDULES, make_schedule
from condconv_jax.training.sharding import state_shardings
from condconv_jax.training.state import WEIGHTS, TrainState, init_state, weights_of
from condconv_jax.training.step import train_step
from condconv_jax.training.task import Task
from condconv_jax.training.window import NonFiniteLossError

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "WEIGHTS",
    "LoopSettings",
    "NonFiniteLossError",
    "StoppedError",
    "Task",
    "TrainState",
    "evaluate",
    "init_state",
    "make_eval_fn",
    "make_optimizer",
    "make_schedule",
    "outside",
    "state_shardings",
    "together",
    "train",
    "train_step",
    "transfer",
    "weights_of",
]
