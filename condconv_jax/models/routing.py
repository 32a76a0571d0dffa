"""How the CondConv layers of a network get their routing weights."""

import dataclasses

from jaxtyping import Array, Float

from condconv_jax.names import unknown_name
from condconv_jax.nn import Router
from condconv_jax.ops import ACTIVATIONS

SHARING = ("none", "partial", "single")
# Width of the hidden ReLU layer over the layer's input channels.
HIDDEN = {"none": 0.0, "small": 1 / 8, "medium": 1.0, "large": 8.0}


@dataclasses.dataclass(frozen=True)
class RoutingOptions:
    """The routing of a network; the defaults are the paper's.

    Attributes:
      activation: "sigmoid", "softmax", "relu" or "tanh".
      temperature: divides the logits.
      sharing: which layers route together: "none", every layer (every block, where its
        convolutions share one) for itself; "partial", pairs of adjacent layers, by the first
        one's input; "single", all of them, by the first one's input.
      hidden: a ReLU layer inside the routing function: "none", "small" (c/8), "medium" (c) or
        "large" (8c), for c input channels.
      hierarchical: append the previous layer's routing weights to the pooled input.
      top_k: weights kept of each example, the rest 0; 0 keeps all.

    The paper names these variants without defining sharing and hierarchy in detail; the
    definitions are our reading, and give its MADDs (docs/madds.md).

    Source: arXiv 1904.04971, section 4.4 and table 3.
    """

    activation: str = "sigmoid"
    temperature: float = 1.0
    sharing: str = "none"
    hidden: str = "none"
    hierarchical: bool = False
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown_name("RoutingOptions", "activation", self.activation, ACTIVATIONS)
        if self.temperature <= 0:
            raise ValueError(
                f"RoutingOptions: temperature is {self.temperature}; pass a positive number"
            )
        if self.sharing not in SHARING:
            raise unknown_name("RoutingOptions", "sharing", self.sharing, SHARING)
        if self.hidden not in HIDDEN:
            raise unknown_name("RoutingOptions", "hidden", self.hidden, HIDDEN)
        if self.top_k < 0:
            raise ValueError(f"RoutingOptions: top_k is {self.top_k}; pass 0 (all) or more")


class RoutingPlan:
    """Hands out routing weights, layer after layer of one forward pass.

    Made and called inside a model's compact `__call__`, so that its routers become the model's
    submodules `router_{layer}`.
    """

    def __init__(self, options: RoutingOptions, num_experts: int):
        self._options = options
        self._num_experts = num_experts
        self._routing: Array | None = None
        self._served = 0

    def __call__(self, x: Float[Array, "b *n c"], layer: int) -> Float[Array, "b e"]:
        """Returns the routing weights of the next CondConv layer.

        Args:
          x: its input.
          layer: its number, which names its router.
        """
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
            options.temperature,
            hidden=max(1, round(hidden)) if hidden else None,
            name=f"router_{layer}",
        )
        self._routing = router(x, self._routing if options.hierarchical else None)
        return self._routing
