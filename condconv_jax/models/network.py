"""What all networks with CondConv layers have in common."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from condconv_jax.models.layers import COND_LAYERS, Layers
from condconv_jax.models.placement import Layout, choose_layers
from condconv_jax.models.routing import RoutingOptions, RoutingPlan
from condconv_jax.names import unknown_name
from condconv_jax.nn import CondDense
from condconv_jax.nn.router import global_average_pool
from condconv_jax.ops import Routing

Activation = Callable[[Array], Array]


class Network(nn.Module):
    """Options of all networks, and the parts that do not differ between them.

    Which layers are CondConv layers is said by one of `begin_layer`, `only_layer` and
    `cond_groups`; where none is given they are those of the publication. Layers are numbered as in
    the paper: 1 is the first convolution, then come the blocks, the head convolution where there
    is one, and the classifier last. Block groups are numbered from 1.

    Attributes:
      num_classes: classes.
      width: multiplies the channels.
      num_experts: e of every CondConv layer; 0 or 1 for the static network. Of the relatives
        below, kernels that are attended to (ODConv has a form with 1) or hidden units; two have
        none.
      begin_layer: the first CondConv layer; all later ones are CondConv too.
      only_layer: the one CondConv layer.
      cond_groups: the block groups whose blocks are CondConv, and the layers after the blocks.
      cond_classifier: whether the classifier is among them (`only_layer` does not ask).
      cond_layer: what stands where CondConv layers do: "condconv", or one of its relatives, to
        compare: "dynamic" (dynamic convolution, arXiv 1912.03458), "odconv" (arXiv 2209.07947),
        "dynamic_filter" (arXiv 1605.09673), "deformable"
        (arXiv 1703.06211), "parallel_kernels" (arXiv 1409.4842, 1907.09595). Of the relatives each
        convolution attends for itself, and the classifier is static; of `routing` they take
        the temperature and its annealing.
      routing: how the layers get their routing weights.
      dropout: rate before the classifier.
      early_strides: strides of the first three layers that have one (2 each in the papers); 1s keep
        small images from vanishing: of 28 to 32 pixels, (1, 1, 2) leaves 4x4 at the end.
      padding: "SAME" as in TensorFlow, or "SYMMETRIC" as in PyTorch.
      batch_norm_momentum: of the running statistics.
      batch_norm_epsilon: added to variances.
      batch_norm_bias: first value of the biases of batch norms that an activation follows (0 in the
        papers). At 1 an activation cuts off little at first; without, gradients grow from layer to
        layer on their way to the input of a deep network without shortcuts, which in narrow ones
        kills channels (arXiv 1902.08129: closer to linear, gradients explode less).
      batch_norm_group: examples of the batch that share statistics in training, on whichever
        devices; 0 for the whole batch, over all of them.
      folded: whether batch norms are folded into the kernels, by `fold_batch_norm`; for inference.
      dtype: of the computation; parameters, batch norm statistics, routing and the classifier are
        at least float32.
      method: how the convolutions run, a name in `ops.METHODS` or "auto".
    """

    num_classes: int = 1000
    width: float = 1.0
    num_experts: int = 0
    begin_layer: int = 0
    only_layer: int = 0
    cond_groups: tuple[int, ...] = ()
    cond_classifier: bool = True
    cond_layer: str = "condconv"
    routing: RoutingOptions = RoutingOptions()
    dropout: float = 0.0
    early_strides: tuple[int, int, int] = (2, 2, 2)
    padding: str = "SAME"
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-3
    batch_norm_bias: float = 0.0
    batch_norm_group: int = 0
    folded: bool = False
    dtype: DTypeLike = jnp.float32
    method: str = "auto"

    # Which layers the publication makes conditional, as arguments of `choose_layers`.
    PUBLISHED: ClassVar[Mapping[str, Any]] = {}
    TASK: ClassVar[str] = "classification"
    # Pixels of the square images that the published counts are of.
    IMAGE_SIZE: ClassVar[int] = 224

    def layout(self) -> Layout:
        """Returns the numbered layers of the network, which every one says for itself."""
        raise NotImplementedError(f"{type(self).__name__}: write layout()")

    @nn.nowrap
    def classifiers(self) -> tuple[str, ...]:
        """Returns the modules whose shapes depend on the classes, which other classes renew."""
        return ("classifier",)

    @nn.nowrap
    def backbone(self) -> tuple[str, ...]:
        """Returns the modules to take over from a network of another task; () of none."""
        return ()

    def conditional_layers(self) -> frozenset[int]:
        """Returns the numbers of the conditional layers.

        Raises:
          ValueError: for an option out of its range.
        """
        self._check()
        chosen: dict[str, Any] = {
            "begin_layer": self.begin_layer,
            "only_layer": self.only_layer,
            "cond_groups": tuple(self.cond_groups),
        }
        if not any(chosen.values()):
            chosen = dict(self.PUBLISHED)
        # Wrong numbers are wrong in a static network too.
        layout = self.layout()
        found = choose_layers(type(self).__name__, layout, **chosen)
        if self.cond_layer != "condconv":
            found -= layout.outputs  # matrices, which no relative replaces
            if not found:
                raise ValueError(
                    f"{type(self).__name__}: the classifier alone is to be conditional, which only "
                    f"CondConv can; place {self.cond_layer!r} in other layers too"
                )
        return found if self.num_experts >= COND_LAYERS[self.cond_layer] else frozenset()

    def _check(self) -> None:
        where = type(self).__name__
        if self.num_experts < 0:
            raise ValueError(f"{where}: num_experts is {self.num_experts}; pass 0 or more")
        if self.width <= 0:
            raise ValueError(f"{where}: width is {self.width}; pass a positive number")
        if min(self.early_strides) < 1:
            raise ValueError(
                f"{where}: early_strides is {self.early_strides}; pass three strides of at least 1 "
                "each"
            )
        if self.batch_norm_group < 0:
            raise ValueError(
                f"{where}: batch_norm_group is {self.batch_norm_group}; pass 0 (the whole batch) "
                "or a number of examples"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{where}: dropout is {self.dropout}; pass 0 (none) to below 1")
        if self.cond_layer not in COND_LAYERS:
            raise unknown_name(where, "cond_layer", self.cond_layer, COND_LAYERS)
        if self.routing.centred and self.cond_layer != "condconv":
            raise ValueError(f"{where}: routing.centred is for CondConv layers alone")


class ForwardPass:
    """The layers of one forward pass, with their routing; made in a network's compact method.

    Not methods of the network: Flax would put their names into the scopes of what they make.

    Attributes:
      layers: makes layers.
      conditional: numbers of the conditional ones.
    """

    def __init__(self, network: Network, *, train: bool):
        """Reads the options of a network.

        Args:
          network: in its compact method.
          train: whether this is a training step.

        Raises:
          ValueError: for an option out of its range.
        """
        if train and network.folded:
            raise ValueError(
                f"{type(network).__name__}: folded is set, which leaves batch norms no statistics; "
                "train the network that was folded"
            )
        self._network = network
        self.conditional = network.conditional_layers()
        options = network.routing
        routed = self.conditional if network.cond_layer == "condconv" else frozenset()
        self._plan = RoutingPlan(network, options, network.num_experts, routed, train=train)
        if train and options.centred:
            raise ValueError(
                f"{type(network).__name__}: routing.centred is set, which is for inference; train "
                "the network that was made sparse"
            )
        # A centred network has the experts' mean as one more expert, which is always mixed.
        mean = int(options.centred)
        self.layers = Layers(
            train=train,
            num_experts=network.num_experts + mean,
            cond_layer=network.cond_layer,
            top_k=options.top_k + mean if options.top_k else None,
            temperature=self._plan.temperature,
            padding=network.padding,
            batch_norm_momentum=network.batch_norm_momentum,
            batch_norm_epsilon=network.batch_norm_epsilon,
            batch_norm_bias=network.batch_norm_bias,
            batch_norm_group=network.batch_norm_group,
            folded=network.folded,
            dtype=network.dtype,
            method=network.method,
        )

    def route(self, x: Float[Array, "b *n c"], layer: int) -> Routing | None:
        """Returns the routing of the next layer by its input; None where it is not routed."""
        return self._plan(x, layer)

    def convolve(
        self,
        x: Float[Array, "b h w c"],
        layer: int,
        features: int,
        kernel_size: int,
        activation: Activation,
        *,
        stride: int = 1,
    ) -> Float[Array, "b h_out w_out f"]:
        """Returns a numbered convolution outside the blocks, with batch norm and activation."""
        x = self.layers.conv(
            x,
            features,
            kernel_size,
            stride=stride,
            conditional=layer in self.conditional,
            routing=self.route(x, layer),
            name=f"layer_{layer}",
        )
        return activation(self.layers.norm(x, name=f"layer_{layer}_bn"))

    def classify(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Returns the logits of the last feature map, in at least float32."""
        network, layers = self._network, self.layers
        features = global_average_pool(x)
        # Routed before dropout, whose noise belongs to the features and not to the kernel.
        routing = self.route(features, network.layout().last)
        features = nn.Dropout(network.dropout, deterministic=not layers.train)(features)
        classifier = CondDense(
            network.num_classes,
            0 if routing is None else layers.num_experts,
            dtype=jnp.promote_types(network.dtype, jnp.float32),
            method=network.method,
            top_k=layers.top_k,
            name="classifier",
        )
        return classifier(features, routing)


def check_fraction(where: str, name: str, value: float) -> None:
    """Raises ValueError where the option of a network is not in 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{where}: {name} is {value}; pass 0 (none) to 1")
