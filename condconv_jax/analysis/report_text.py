"""What a report says in words; every number in it comes from the networks at hand."""

import html
from collections.abc import Mapping, Sequence

from condconv_jax.analysis import page
from condconv_jax.analysis.collapse import IDLE
from condconv_jax.analysis.layer_statistics import LayerStatistics
from condconv_jax.analysis.routing import NEAR
from condconv_jax.analysis.routing_figures import CLASSES
from condconv_jax.analysis.summary import AnalysedNetwork, compared, standard_error
from condconv_jax.analysis.switching_off import SwitchedOff

PAPER = "Yang, Bender, Le and Ngiam, CondConv, NeurIPS 2019, arXiv 1904.04971"
FORMULA = (
    "<span><i>y</i> = <i>&sigma;</i>((<i>r</i><sub>1</sub><i>W</i><sub>1</sub> + … + "
    "<i>r<sub>E</sub></i><i>W<sub>E</sub></i>) &lowast; <i>x</i>),</span> "
    "<span><i>r</i> = {activation}(FC(GAP(<i>x</i>)))</span>"
)


def explanation(networks: Sequence[AnalysedNetwork]) -> str:
    """Returns what CondConv is, as HTML."""
    found = {n.config["model"]["routing"]["activation"] for n in networks if n.routing}
    activation = " or ".join(sorted(found)) or "sigmoid"
    return "\n".join(
        [
            page.paragraph(
                "A convolution uses one kernel for every image. A CondConv layer holds E kernels, "
                "its experts, and makes one kernel of them for each image: it averages its input x "
                "over all positions (GAP), computes from that one routing weight per expert "
                "(a dense layer FC and an activation), and adds up the experts by these weights. "
                "Only then does it convolve, once, with that kernel:"
            ),
            f'<div class="formula">{FORMULA.format(activation=html.escape(activation))}</div>',
            page.paragraph(
                "The asterisk is the convolution, the sigma the layer's activation. Because "
                "convolution is linear, this gives the same as E convolutions weighted afterwards, "
                "at the cost of one, and of mixing the kernels. Mixing costs the same however "
                "large the image is: hardly anything at the paper's 224 pixels, but a visible "
                "share at 28 or 32. So experts add parameters, and with them capacity, for few "
                "multiply-adds. Experts and routing are trained together by gradient descent. "
                f"Source: {PAPER}."
            ),
        ]
    )


def table_note(networks: Sequence[AnalysedNetwork]) -> str:
    """Returns how to read the table."""
    error = max(standard_error(network) for network in networks)
    note = (
        f"Accuracies over all {networks[0].examples:,} evaluation images; with so many, the "
        f"standard error of top-1 is up to {100 * error:.1f} points. MADDs are multiply-adds of "
        f"one image{_overheads(networks)}. The training time leaves out evaluations; "
        "images/s is its median after compilation; both belong to the machine that trained. The "
        "train loss is the mean over the last epoch."
    )
    if len({network.step for network in networks}) > 1:
        steps = ", ".join(f"{n.name} {n.step:,}" for n in networks)
        note += f" The networks have trained for different numbers of steps: {steps}."
    pair = compared(networks)
    if pair is None:
        return note
    old, new = pair
    gain = abs((new.score("top1") or 0.0) - (old.score("top1") or 0.0))
    both = (standard_error(new) ** 2 + standard_error(old) ** 2) ** 0.5
    verdict = "more" if gain > 2 * both else "no more"
    return (
        f"{note} The two differ by {100 * gain:.2f} points, {verdict} than twice the standard "
        f"error of a difference ({100 * both:.1f}); that counts the choice of images only, another "
        "seed moves the accuracies too."
    )


def curves_caption(networks: Sequence[AnalysedNetwork]) -> str:
    """Returns the caption of the training curves."""
    ends = "; ".join(
        f"{n.name} ends with {n.curves.final_loss:.3f} over its last epoch and {_percent(n)} top-1"
        for n in networks
        if n.curves is not None
    )
    return (
        "Left the training loss, each point the mean since the point before; right the accuracy "
        f"on the evaluation images after each epoch or so. {ends}. Where the loss falls lower but "
        "the accuracy does not rise, the added capacity has begun to memorise: the paper saw this "
        "in ResNet-50 with 8 experts, until it was regularised more."
    )


def cost_caption(networks: Sequence[AnalysedNetwork]) -> str:
    """Returns the caption of accuracy against multiply-adds."""
    here = ""
    if (pair := compared(networks)) is not None:
        old, new = pair
        gain = 100 * ((new.score("top1") or 0.0) - (old.score("top1") or 0.0))
        cost = 100 * (new.madds / old.madds - 1) if old.madds else 0.0
        here = (
            f" Here {new.name} lies {abs(gain):.2f} points {'above' if gain >= 0 else 'below'} "
            f"{old.name}, at {abs(cost):.0f} % {'more' if cost >= 0 else 'fewer'} multiply-adds."
        )
    return (
        "Higher is more accurate, further to the right costs more computation; bars reach one "
        f"standard error over {networks[0].examples:,} images up and down.{here} In the paper "
        "CondConv networks lie above their static twins and slightly to the right: MobileNetV1 "
        "on ImageNet goes from 71.9 % at 567 M to 73.7 % at 600 M, with 8 experts a layer."
    )


def distribution_caption(network: AnalysedNetwork, layers: Sequence[str]) -> str:
    """Returns the caption of the distribution of routing weights."""
    found = network.statistics()
    last = list(network.routing)[-1]
    chosen = (
        f"{len(layers)} of {len(network.routing)} layers, evenly spaced. "
        if len(layers) < len(network.routing)
        else ""
    )
    return (
        f"{chosen}All weights of all images and experts of a layer; the grey band marks those "
        f"closer than {NEAR} to 0. A weight near 0 means that the expert takes no part for that "
        f"image. In the last layer, {last}, {100 * found[last].near_zero:.0f} % of the weights are "
        f"near 0 and {100 * found[last].near_one:.0f} % near 1. The paper found two peaks in "
        "the last layer's distribution, with many weights close to 0, which suggests that experts "
        "can be activated sparsely."
    )


def classes_caption(
    network: AnalysedNetwork, layers: Sequence[str], shown: int, class_names: Sequence[str]
) -> str:
    """Returns the caption of the heat maps."""
    present = len(set(network.labels.tolist()))
    chosen = (
        f"Of {present} classes the {shown} whose routing in {layers[-1]} is farthest from the "
        "average are shown, sorted by the expert that sets them apart most. "
        if shown < present
        else "Classes that weigh the same expert most above the average are next to each other. "
        if shown > CLASSES
        else ""
    )
    return (
        f"{chosen}Rows are classes, columns the experts of a layer ({', '.join(layers)}); the "
        "colour is the mean weight over a class's images. Columns of one colour say that all "
        "classes use an expert alike; rows that differ say that the class decides. Experts have "
        "no order, and expert 0 of one layer has nothing to do with expert 0 of another. The "
        "paper shows the same at three depths: routing becomes more specific to the class with "
        "depth. Each cell shows its value under the pointer."
    )


def experts_note(layer: str) -> str:
    """Returns how to read the table of experts."""
    return (
        f"The mean routing weight of an expert of {layer} over all images, and the classes with "
        "the highest means. In its final layer the paper found experts for wheeled vehicles, "
        "for cylindrical household objects, and for brown and black dogs."
    )


def favourites_caption(network: AnalysedNetwork, layer: str) -> str:
    """Returns the caption of the images that experts weigh most."""
    shown, total = len(network.favourites[layer].experts), network.routing[layer].shape[1]
    chosen = f"Of {total} experts the {shown} whose weights vary most. " if shown < total else ""
    return (
        f"{chosen}A row for each expert: of all evaluation images those with the highest routing "
        "weight for it, heaviest first, with their class and that weight. Weights that a sigmoid "
        "has driven to 1 are equal, and such images come in the order of the data; a row of "
        "weights near 0 is an expert that hardly takes part in any image. The paper's figure 6 "
        "shows the same for its final CondConv layer, by class."
    )


def switched_off_note(found: SwitchedOff) -> str:
    """Returns how to read the table of accuracies without an expert."""
    return (
        f"Top-1 over {found.images:,} evaluation images, evenly spaced, with the routing weight "
        f"of one expert of {found.layer} held at 0 and nothing else changed; with all experts it "
        f"is {100 * found.top1:.2f} % there. One image is {100 / found.images:.2f} points. The "
        "later layers were not trained for the gap: a loss is what the trained network owes the "
        "expert, not what it would lack had it been trained without."
    )


def spread_note(network: AnalysedNetwork) -> str:
    """Returns how to read the table of layers, from the use of its experts on."""
    note = (
        "Effective experts: how many equally used experts would share the layer's weight as "
        "unevenly as these do on average, 1 where all has collapsed into one; per image, how many "
        "an image mixes by the same measure. Both count shares of the weights, since those of a "
        "sigmoid do not add up to one. Idle: experts that no image weighs more than "
        f"{100 * IDLE:.0f} % of the layer's largest weight. "
        "Experts apart: how far the experts of each convolution of the layer lie from their mean, "
        "over the size of that mean. 0 are equal experts; the square root of one less than their "
        "number are experts that have nothing in common, as they begin. Distinct: the stable rank "
        "of each convolution's experts, 1 where all are multiples of one kernel, which routing "
        "can then only scale."
    )
    if not network.learned:
        return note
    return (
        f"{note} Learned: the part of it that has come since the weights that training started "
        "from; differences that it only kept or shrank are left out."
    )


def depth_caption(statistics: Mapping[str, Mapping[str, LayerStatistics]], chance: float) -> str:
    """Returns the caption of class-specific routing by depth."""
    ends = []
    for name, layers in statistics.items():
        names = list(layers)
        first, last = names[0], names[-1]
        a, b = layers[first], layers[last]
        if first == last:
            ends.append(f"{name}: η² {a.specificity:.2f}, spread {a.spread:.2f} in {first}.")
        else:
            ends.append(
                f"{name}, from {first} to {last}: η² {_from_to(a.specificity, b.specificity)}, "
                f"the spread {_from_to(a.spread, b.spread)}."
            )
    return (
        "Left the share of the variance of a layer's routing weights that lies between classes, "
        "η²: 0 if all classes are routed alike on average, 1 if all images of a class get the "
        f"same weights; labels shuffled at random would give {chance:.3f}. Right how far apart "
        "the class means are, in units of weight: the contrast between the rows of the heat maps. "
        f"{' '.join(ends)} In the paper's networks the mean weights of classes are close to each "
        "other in early layers and move apart with depth."
    )


def _from_to(first: float, last: float) -> str:
    verb = "rises" if last > first else "falls"
    return f"{verb} from {first:.2f} to {last:.2f}"


def static_note(names: Sequence[str]) -> str:
    """Returns why some networks have no routing figures."""
    one = len(names) == 1
    return (
        f"{', '.join(names)} {'is a static network' if one else 'are static networks'}, without "
        "CondConv layers: the same kernels serve every image, so there is no routing to show."
    )


def _overheads(networks: Sequence[AnalysedNetwork]) -> str:
    """The share of multiply-adds that goes into mixing and routing, where there is any."""
    shares = [
        f"{n.name} {100 * n.overhead / n.madds:.0f} %" for n in networks if n.overhead and n.madds
    ]
    return f", those of mixing and routing included ({', '.join(shares)})" if shares else ""


def _percent(network: AnalysedNetwork) -> str:
    return f"{100 * (network.score('top1') or 0.0):.1f} %"
