"""Which layers of a network are CondConv layers.

Layers are numbered as in the paper: 1 is the first convolution, then come the blocks, then the
head convolution where there is one, last the classifier. Block groups are numbered from 1 too.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Layout:
    """The numbered layers of a network.

    Attributes:
      groups: the blocks' layer numbers, by block group, ascending from 2.
      optional: which of the layers after the blocks (head convolution, classifier) may be CondConv
        layers, by number, and the name of the option that says so.
      classifiers: how many of the last layers give the network's outputs.
    """

    groups: tuple[tuple[int, ...], ...]
    optional: Mapping[int, tuple[str, bool]]
    classifiers: int = 1

    @property
    def last(self) -> int:
        """The number of the last layer, in most networks the classifier."""
        return max(self.optional)

    @property
    def outputs(self) -> frozenset[int]:
        """The numbers of the classifiers."""
        return frozenset(range(self.last - self.classifiers + 1, self.last + 1))


def make_groups(repeats: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Returns the layer numbers of block groups of so many blocks each."""
    groups, first = [], 2
    for count in repeats:
        groups.append(tuple(range(first, first + count)))
        first += count
    return tuple(groups)


def choose_layers(
    where: str,
    layout: Layout,
    *,
    begin_layer: int = 0,
    only_layer: int = 0,
    cond_groups: tuple[int, ...] = (),
) -> frozenset[int]:
    """Returns the numbers of the CondConv layers.

    Args:
      where: the network, for errors.
      layout: its layers.
      begin_layer: the first of them; 0 where another option chooses.
      only_layer: the one of them, whatever `layout.optional` says; 0 likewise.
      cond_groups: block groups whose blocks they are; () likewise.

    Raises:
      ValueError: if not exactly one of the three is given, one is out of range, or no layer is
        left.
    """
    last, count = layout.last, len(layout.groups)
    given = {"begin_layer": begin_layer, "only_layer": only_layer, "cond_groups": cond_groups}
    chosen = [name for name, value in given.items() if value]
    if len(chosen) != 1:
        raise ValueError(
            f"{where}: {' and '.join(f'{name} {given[name]}' for name in chosen) or 'none'} of "
            f"{', '.join(given)}; set one of them"
        )
    for name, layer in (("begin_layer", begin_layer), ("only_layer", only_layer)):
        if not 0 <= layer <= last:
            raise ValueError(
                f"{where}: {name} is {layer}; pass 1 to {last} (1 is the first convolution, {last} "
                f"the {'last ' if layout.classifiers > 1 else ''}classifier), or 0 to choose "
                "otherwise"
            )
    if not all(1 <= group <= count for group in cond_groups):
        raise ValueError(
            f"{where}: cond_groups is {cond_groups}; pass block groups from 1 to {count}"
        )
    if only_layer:
        return frozenset([only_layer])
    excluded = {layer for layer, (_, included) in layout.optional.items() if not included}
    if begin_layer:
        found = frozenset(range(begin_layer, last + 1)) - excluded
    else:
        blocks = (layer for group in cond_groups for layer in layout.groups[group - 1])
        found = frozenset([*blocks, *layout.optional]) - excluded
    if not found:
        left_out = (name for name, included in layout.optional.values() if not included)
        options = ", ".join(dict.fromkeys(left_out))
        raise ValueError(
            f"{where}: begin_layer {begin_layer} leaves no CondConv layer; lower it, or set "
            f"{options} to True"
        )
    return found
