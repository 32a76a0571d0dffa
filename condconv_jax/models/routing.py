"""How the CondConv layers of a network get their routing weights."""

import dataclasses
from collections.abc import Collection

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from condconv_jax.names import unknown_name
from condconv_jax.nn import Router
from condconv_jax.nn.variables import SCHEDULE
from condconv_jax.ops import ACTIVATIONS, Routing, drop_experts, shake_experts

SHARING = ("none", "partial", "single")
# Width of the hidden ReLU layer over the layer's input channels.
HIDDEN = {"none": 0.0, "small": 1 / 8, "medium": 1.0, "large": 8.0}
NOISE = ("none", "drop", "shake")
# Whose weights are in 0..1, so that no deviation outweighs the mean's weight of 1.
CENTRED = ("sigmoid", "softmax")


@dataclasses.dataclass(frozen=True)
class RoutingOptions:
    """The routing of a network; the defaults are the paper's.

    Attributes:
      activation: "sigmoid", "softmax", "relu" or "tanh".
      temperature: divides the logits.
      initial_temperature: of the first training step, from where it goes to `temperature` in a
        straight line; 0 for `temperature` all along. Dynamic convolution starts at 30.
      anneal_steps: training steps that this takes.
      sharing: which layers route together: "none", every layer (every block, where its
        convolutions share one) for itself; "partial", pairs of adjacent layers, by the first
        one's input; "single", all of them, by the first one's input.
      hidden: a ReLU layer inside the routing function: "none", "small" (c/8), "medium" (c) or
        "large" (8c), for c input channels.
      hierarchical: append the previous layer's routing weights to the pooled input.
      top_k: weights kept of each example, the rest 0; 0 keeps all.
      noise: what keeps experts from fitting the training set too well, in training only: "none";
        "drop", each example's experts dropped at random (`ops.drop_experts`); "shake", random
        convex coefficients drawn anew for the gradient (`ops.shake_experts`). Layers that share a
        routing share its noise.
      drop_rate: of "drop".
      centred: whether layers mix the experts' mean and their deviations from it, of which `top_k`
        are kept; made by `sparsify`, for inference.

    The paper names its variants without defining sharing and hierarchy in detail; the
    definitions are our reading, and give its MADDs (docs/madds.md).

    Source: arXiv 1904.04971, section 4.4 and table 3; noise: the authors' response.
    """

    activation: str = "sigmoid"
    temperature: float = 1.0
    initial_temperature: float = 0.0
    anneal_steps: int = 0
    sharing: str = "none"
    hidden: str = "none"
    hierarchical: bool = False
    top_k: int = 0
    noise: str = "none"
    drop_rate: float = 0.5
    centred: bool = False

    def __post_init__(self) -> None:
        for name, choices in (
            ("activation", ACTIVATIONS),
            ("sharing", SHARING),
            ("hidden", HIDDEN),
            ("noise", NOISE),
        ):
            if getattr(self, name) not in choices:
                raise unknown_name("RoutingOptions", name, getattr(self, name), choices)
        if self.temperature <= 0:
            raise ValueError(
                f"RoutingOptions: temperature is {self.temperature}; pass a positive number"
            )
        if self.initial_temperature < 0 or self.anneal_steps < 0:
            raise ValueError(
                f"RoutingOptions: initial_temperature is {self.initial_temperature}, anneal_steps "
                f"{self.anneal_steps}; pass 0 (no annealing) or more"
            )
        if (self.initial_temperature > 0) != (self.anneal_steps > 0):
            raise ValueError(
                f"RoutingOptions: initial_temperature is {self.initial_temperature}, anneal_steps "
                f"{self.anneal_steps}; annealing needs both, none of it neither"
            )
        if self.top_k < 0:
            raise ValueError(f"RoutingOptions: top_k is {self.top_k}; pass 0 (all) or more")
        if not 0 <= self.drop_rate < 1:
            raise ValueError(
                f"RoutingOptions: drop_rate is {self.drop_rate}; pass 0 (none) to below 1"
            )
        if self.centred and (self.activation not in CENTRED or self.hierarchical):
            raise ValueError(
                f"RoutingOptions: centred is for routing by {' or '.join(CENTRED)}, which is not "
                "hierarchical"
            )
        if self.top_k and self.noise == "shake":
            raise ValueError(
                "RoutingOptions: noise 'shake' mixes all experts; pass top_k=0, or noise 'drop'"
            )


def current_temperature(
    module: nn.Module, options: RoutingOptions, *, train: bool
) -> float | Float[Array, ""]:
    """Returns the temperature of this forward pass; each one in training is a step of annealing.

    The steps done are the variable `schedule/step` of the network: part of its state, as batch norm
    statistics are, so that a checkpoint has them and evaluation uses the temperature of training.
    Whoever takes several forward passes for one step gives each the state of the first
    (`training.train_step`).

    Args:
      module: the network, in its compact method.
      options: its routing.
      train: whether this is a training step.

    Source: arXiv 1912.03458, section 3.3 (30 to 1 in the first 10 epochs).
    """
    if not options.anneal_steps:
        return options.temperature
    step = module.variable(SCHEDULE, "step", lambda: jnp.zeros((), jnp.int32))
    done = jnp.minimum(step.value / options.anneal_steps, 1.0)
    if train and not module.is_initializing():
        step.value = step.value + 1
    start = options.initial_temperature
    return start + (options.temperature - start) * done


class RoutingPlan:
    """Hands out routing weights, layer after layer of one forward pass.

    Made and called inside a model's compact `__call__`, so that its routers become the model's
    submodules `router_{layer}`.
    """

    def __init__(
        self,
        module: nn.Module,
        options: RoutingOptions,
        num_experts: int,
        layers: Collection[int],
        *,
        train: bool,
    ):
        """Plans the routing of a forward pass.

        Args:
          module: the network, whose random numbers the noise draws.
          options: how to route.
          num_experts: e.
          layers: numbers of the layers that are routed here.
          train: whether there is noise.
        """
        self._module = module
        self._options = options
        self._num_experts = num_experts
        self._layers = layers
        self._temperature = current_temperature(module, options, train=train)
        self._train = train
        self._weights: Array | None = None
        self._routing: Routing | None = None
        self._served = 0

    @property
    def temperature(self) -> float | Array:
        """The temperature of this forward pass."""
        return self._temperature

    def __call__(self, x: Float[Array, "b *n c"], layer: int) -> Routing | None:
        """Returns the routing of the next layer; None of one that is not routed here.

        Args:
          x: its input.
          layer: its number, which names its router.
        """
        if layer not in self._layers:
            return None
        options = self._options
        reuse = {
            "none": False,
            "partial": self._served % 2 == 1,
            "single": self._served > 0,
        }[options.sharing]
        self._served += 1
        if reuse and self._routing is not None:
            return self._routing
        hidden = HIDDEN[options.hidden] * x.shape[-1]
        router = Router(
            self._num_experts,
            options.activation,
            self._temperature,
            hidden=max(1, round(hidden)) if hidden else None,
            centred=options.centred,
            name=f"router_{layer}",
        )
        self._weights = router(x, self._weights if options.hierarchical else None)
        self._routing = self._noisy(self._weights)
        return self._routing

    def _noisy(self, weights: Array) -> Routing:
        if not self._train or self._options.noise == "none":
            return weights
        key = self._module.make_rng("dropout")
        if self._options.noise == "shake":
            return shake_experts(weights, key)
        return drop_experts(weights, key, self._options.drop_rate)
