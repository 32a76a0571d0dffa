"""What a claim is: networks to compare, and what it expects of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from sweep import Run

CONFIG = "configs/cifar100/claims.py"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network under the protocol; its runs differ by their seed alone.

    Attributes:
      name: of its runs, before the seed.
      label: in tables and figures.
      changes: of the config, value by dotted key.
      network: argument of the config.
    """

    name: str
    label: str
    changes: Mapping[str, Any]
    network: str = "mobilenet_v1"

    def run(self, seed: int) -> Run:
        """Returns the run of a seed."""
        return Run(
            f"{self.name}_{seed}", f"{CONFIG}:{self.network}", {**self.changes, "seed": seed}
        )


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a claim says about the accuracy of two variants.

    Attributes:
      of: name of a variant.
      than: name of another.
      relation: whether the first is "above" the second, or "alike".
      measure: "top1" in percent, or "train_loss" of the last epoch in nats.
      paper: the paper's difference; None where it gives none.
    """

    of: str
    than: str
    relation: Literal["above", "alike"] = "above"
    measure: Literal["top1", "train_loss"] = "top1"
    paper: float | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim and how it is tested.

    Attributes:
      key: letter.
      title: in a few words.
      statement: what is claimed.
      source: where.
      seeds: of each of its variants, at least.
      variants: the networks that it compares.
      expectations: that hold if the claim does.
      refuted: what would speak against it.
      imagenet: command that trains the claim's network at the paper's scale.
      paper: published top-1 in percent by variant.
    """

    key: str
    title: str
    statement: str
    source: str
    seeds: int
    variants: tuple[Variant, ...]
    expectations: tuple[Expectation, ...]
    refuted: str
    imagenet: str
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
