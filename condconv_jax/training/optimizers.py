"""Optimisers, with weight decay on the right parameters."""

from collections.abc import Collection
from typing import Any

import jax
import optax

from condconv_jax.names import unknown_name
from condconv_jax.nn.compress import EXPERT_NDIM

OPTIMIZERS = ("sgd", "rmsprop")
DECAY_MASKS = ("kernels", "all_but_batch_norm", "all")


def decay_mask(params: Any, which: str) -> Any:
    """Returns a tree like `params` of booleans: which parameters decay.

    Args:
      params: parameters, nested dicts.
      which: "kernels" (experts and routing kernels too, no biases), "all_but_batch_norm" (the
        official code's choice; a batch norm is a module with a parameter `scale`) or "all".

    Raises:
      ValueError: for another name.

    Source: tensorflow/tpu, models/official/efficientnet/main.py (L2 on all but batch norm).
    """
    if which not in DECAY_MASKS:
        raise unknown_name("decay_mask", "mask", which, DECAY_MASKS)
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    norms = {path[:-1] for path in paths if path[-1] == "scale"}

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        del leaf
        names = _names(path)
        if which == "kernels":
            return names[-1] == "kernel"
        return which == "all" or names[:-1] not in norms

    return jax.tree_util.tree_map_with_path(decays, params)


def _adaptive_clip(limit: float, classifiers: Collection[str]) -> optax.GradientTransformation:
    """As `optax.adaptive_grad_clip`, which by rank alone takes experts for channels or windows."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def clip(path: tuple[Any, ...], gradient: Any, value: Any) -> Any:
            module, _, leaf = "/".join(_names(path)).rpartition("/")
            if module in classifiers and leaf == "kernel":
                return gradient
            one = optax.adaptive_grad_clip(limit, axis=_axes_of_a_unit(path, value))
            return one.update(gradient, optax.EmptyState(), value)[0]

        return jax.tree_util.tree_map_with_path(clip, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _axes_of_a_unit(path: tuple[Any, ...], value: Any) -> tuple[int, ...] | None:
    """All but experts and output channels; None of a parameter without experts."""
    name = _names(path)[-1]
    if name == "kernel" and value.ndim in EXPERT_NDIM:
        return tuple(range(1, value.ndim - 1))
    return (1,) if name == "bias" and value.ndim == 2 else None


def _is_offset(params: Any) -> Any:
    """Returns a tree like `params` of booleans: which give the offsets of deformable layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "offset" in _names(path), params)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(key.key) for key in path)


def make_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    rms_decay: float = 0.9,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    decay: str = "kernels",
    clip_norm: float = 0.0,
    adaptive_clip: float = 0.0,
    offset_rate: float = 1.0,
    classifiers: Collection[str] = (),
) -> optax.GradientTransformation:
    """Returns an optimiser.

    "rmsprop" is TensorFlow's: its mean square starts at 1, epsilon stands under the root, and the
    momentum is of steps that are multiplied by the learning rate already.

    Args:
      name: one of `OPTIMIZERS`.
      learning_rate: constant, or a function of the step.
      momentum: decay of the velocity.
      nesterov: whether to look ahead.
      rms_decay: of "rmsprop", decay of the mean square of the gradient.
      epsilon: of "rmsprop", added to the mean square.
      weight_decay: L2 coefficient, added to the gradient before anything else but clipping.
      decay: which parameters decay, see `decay_mask`.
      clip_norm: largest global norm of the gradient; 0 for no limit.
      adaptive_clip: largest norm of the gradient of one output channel's weights, or of a bias or
        another vector, over the norm of what it is of; of each expert by itself; 0 for no limit.
      offset_rate: learning rate of what gives the offsets of deformable convolutions, modules named
        "offset", in that of all else.
      classifiers: paths of the modules whose kernels `adaptive_clip` leaves alone, as its authors
        do with the classifier's.

    Raises:
      ValueError: for an unknown name, or a value out of its range.

    Source: rmsprop: tensorflow/tpu, models/official/efficientnet/utils.py (build_optimizer);
      adaptive_clip: arXiv 2102.06171, sections 4 and 5.1; offset_rate: arXiv 1811.11168,
      section 3.2 (0.1).
    """
    if name not in OPTIMIZERS:
        raise unknown_name("make_optimizer", "optimizer", name, OPTIMIZERS)
    if decay not in DECAY_MASKS:
        raise unknown_name("make_optimizer", "decay mask", decay, DECAY_MASKS)
    # A negative limit or decay would turn the gradient around, or let weights grow.
    for key, value, zero in (
        ("clip_norm", clip_norm, "no limit"),
        ("adaptive_clip", adaptive_clip, "no limit"),
        ("offset_rate", offset_rate, "fixed"),
        ("weight_decay", weight_decay, "none"),
    ):
        if not value >= 0:
            raise ValueError(f"make_optimizer: {key} is {value}; pass 0 ({zero}) or more")
    for key, value in (("momentum", momentum), ("rms_decay", rms_decay)):
        if not 0 <= value < 1:
            raise ValueError(f"make_optimizer: {key} is {value}; pass 0 to below 1")
    if not epsilon > 0:
        raise ValueError(f"make_optimizer: epsilon is {epsilon}; pass a positive number")
    steps = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if adaptive_clip:
        steps.append(_adaptive_clip(adaptive_clip, classifiers))
    if weight_decay:
        steps.append(
            optax.add_decayed_weights(weight_decay, mask=lambda params: decay_mask(params, decay))
        )
    if name == "sgd":
        update = optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    else:
        update = optax.rmsprop(
            learning_rate,
            decay=rms_decay,
            eps=epsilon,
            initial_scale=1.0,
            eps_in_sqrt=True,
            momentum=momentum,
            nesterov=nesterov,
        )
    steps.append(update)
    if offset_rate != 1:
        steps.append(optax.masked(optax.scale(offset_rate), _is_offset))
    return optax.chain(*steps)
