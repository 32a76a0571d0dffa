"""What a claim is: networks to compare, and what it expects of them; and a plan to test several."""

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
      seeds: where it is to have more than its claims ask for.
    """

    name: str
    label: str
    changes: Mapping[str, Any]
    network: str = "mobilenet_v1"
    seeds: int = 0

    @property
    def data(self) -> str:
        """Where its pictures are; "" for the protocol's own."""
        return str(self.changes.get("data.path", ""))

    def run(self, seed: int) -> Run:
        """Returns the run of a seed."""
        return Run(
            f"{self.name}_{seed}", f"{CONFIG}:{self.network}", {**self.changes, "seed": seed}
        )


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a claim says about two variants.

    Attributes:
      of: name of a variant.
      than: name of another.
      relation: whether the measure of the first is "above" that of the second, "below" or "alike".
      measure: "top1" in percent of test pictures, or of training pictures as they are "fit_top1"
        in percent and "fit_loss" in nats.
      paper: the paper's difference; None where it gives none.
      beyond: names of two more; the difference of theirs, which that of `of` and `than` is to
        exceed, as a gain that grows with data does.
      overfits: names of a variant that has to overfit for the comparison to say anything, and of
        one that it has to overfit beside: to fit training pictures better than, or all of them,
        and not test pictures.
    """

    of: str
    than: str
    relation: Literal["above", "below", "alike"] = "above"
    measure: Literal["top1", "fit_top1", "fit_loss"] = "top1"
    paper: float | None = None
    beyond: tuple[str, str] | None = None
    overfits: tuple[str, str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all variants that it compares."""
        return (self.of, self.than, *(self.beyond or ()))


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
      note: in what this test is not the paper's.
      reference: name of the variant whose multiply-adds the others' are compared with.
      pictures: the data set.
      published: heading of `paper` in figures.
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
    note: str = ""
    reference: str = "static"
    pictures: str = "CIFAR-100"
    published: str = "paper"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All claims and the runs that test them under one protocol.

    Attributes:
      title: of the page.
      claims: in the order in which they are tested.
      lengths: what the protocol's length leaves to be learned: the same networks by the multiple
        of its epochs for which they are trained, 1 among them.
      length_seeds: of each of these.
    """

    title: str
    claims: tuple[Claim, ...]
    lengths: Mapping[float, tuple[Variant, ...]]
    length_seeds: int = 3

    def variants(self) -> dict[str, Variant]:
        """Returns every variant by name, in the order of the claims."""
        found = {variant.name: variant for length in self.lengths.values() for variant in length}
        return found | {v.name: v for claim in self.claims for v in claim.variants}

    def runs(self) -> list[Run]:
        """Returns each run once.

        The first seed of the lengths, then the claims, those with most seeds first, seed by seed;
        then what some variants have beyond that, and the other seeds of the lengths.
        """
        of_lengths = [v for length in self.lengths.values() for v in length]
        ordered = [variant.run(0) for variant in of_lengths]
        for seeds in sorted({claim.seeds for claim in self.claims}, reverse=True):
            for seed in range(seeds):
                for claim in self.claims:
                    ordered += [v.run(seed) for v in claim.variants if claim.seeds == seeds]
        ordered += [v.run(seed) for v in self.variants().values() for seed in range(v.seeds)]
        ordered += [v.run(seed) for seed in range(1, self.length_seeds) for v in of_lengths]
        return list({run.name: run for run in ordered}.values())
