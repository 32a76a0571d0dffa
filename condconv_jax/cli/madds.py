"""`condconv madds`."""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

HELP = """Multiply-adds and parameters of a network, layer by layer; or of every network whose count
the paper gives, beside it."""
EXAMPLE = """condconv madds --model mobilenet_v1 width=0.25 num_experts=32 routing.hidden=medium
  condconv madds --config=configs/fashion_mnist/mobilenet_v1.py:condconv
  condconv madds --paper"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE.py[:ARG]", help="the network of a config")
    what.add_argument("--workdir", metavar="DIR", help="the network of a run")
    what.add_argument("--model", metavar="NAME", help="a network by name, with options")
    what.add_argument("--paper", action="store_true", help="the paper's counts, and ours")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="of --model")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="default: the config's; for a name, those of the publication",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="default: the data's; for a name, those of the publication",
    )
    parser.add_argument(
        "--form",
        choices=("conv", "mixture"),
        default="conv",
        help="count CondConv as one convolution with a mixed kernel, or as E convolutions",
    )


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Prints the table."""
    from condconv_jax import analysis

    if arguments.num_classes is not None and arguments.num_classes < 1:
        raise ValueError(f"--num-classes is {arguments.num_classes}; pass at least 1")
    if arguments.options and not arguments.model:
        raise ValueError(
            f"{arguments.options[0]!r}: options go with --model; use --config.KEY=VALUE"
        )
    if arguments.paper:
        _print_paper()
        return
    model, size = _model(arguments, overrides)
    size = size if arguments.image_size is None else arguments.image_size
    if size < 1:
        raise ValueError(f"--image-size is {size}; pass at least 1 pixel")
    costs = analysis.layer_costs(model, size, form=arguments.form)
    rows = [(c.name, c.conv, c.mixing, c.routing, c.total, c.params) for c in costs]
    totals = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    width = max(len(row[0]) for row in rows)
    print(f"{'layer':<{width}}  " + "".join(f"{h:>13}" for h in _HEADINGS))
    for name, *numbers in [*rows, ("all", *totals)]:
        print(f"{name:<{width}}  " + "".join(f"{n:>13,}" for n in numbers))
    print(f"{totals[3] / 1e6:.1f} M multiply-adds of one {size}x{size} image")


_HEADINGS = ("conv", "mixing", "routing", "MADDs", "parameters")


def _model(arguments: argparse.Namespace, overrides: Sequence[str]) -> tuple[Any, int]:
    """The network that was asked for, and its image size."""
    from condconv_jax import config as configs
    from condconv_jax import models, runtime
    from condconv_jax.cli.flags import config_from_dict, config_from_file

    if arguments.model:
        if overrides:
            raise ValueError(f"unknown argument {overrides[0]!r}; options are OPTION=VALUE")
        options = _parse(arguments.options)
        model = models.create(arguments.model, arguments.num_classes, **options)
        return model, model.IMAGE_SIZE
    if arguments.config:
        config = config_from_file(arguments.config, overrides).to_dict()
    else:
        saved = runtime.WorkDir(arguments.workdir).read_config()
        config = config_from_dict(saved, overrides).to_dict()
    classes = arguments.num_classes or _num_classes(arguments, config)
    return configs.make_model(config["model"], classes), config["data"]["image_size"]


def _num_classes(arguments: argparse.Namespace, config: dict[str, Any]) -> int:
    from condconv_jax import config as configs
    from condconv_jax import runtime

    if arguments.workdir and (facts := runtime.WorkDir(arguments.workdir).read_facts()):
        return len(facts["class_names"])
    try:
        return configs.open_source(config, config["data"]["eval"]).num_classes
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"the data, whose classes the classifier has, cannot be read: {error}; or pass "
            "--num-classes"
        ) from error


def _parse(options: Sequence[str]) -> dict[str, Any]:
    """`routing.hidden=medium` as {"routing": {"hidden": "medium"}}."""
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise ValueError(f"{option!r} is no option; pass OPTION=VALUE, e.g. width=0.25")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        group, dot, name = key.partition(".")
        if dot:
            parsed.setdefault(group, {})[name] = value
        else:
            parsed[key] = value
    return parsed


def _print_paper() -> None:
    from condconv_jax import analysis, models
    from condconv_jax.analysis.published import PUBLISHED

    network = None
    for row in PUBLISHED:
        if row.network != network:
            network = row.network
            print(f"{network:<41}{'expected':>9}{'ours':>10}{'difference':>12}   source")
        model = models.create(row.model, **row.options)
        costs = analysis.layer_costs(model, model.IMAGE_SIZE, form=row.form)
        _print_row(row.name, row.madds, sum(cost.total for cost in costs), row.source)
        if row.params is not None:
            _print_row("  parameters", row.params, sum(cost.params for cost in costs), row.source)


def _print_row(name: str, expected: float, ours: int, source: str) -> None:
    millions = ours / 1e6
    difference = round(100 * (millions / expected - 1), 2) + 0.0  # no negative zero
    # As many digits as the source gives, and never none of ours.
    got = f"{millions:.{max(1, len(str(expected).partition('.')[2]))}f} M"
    print(f"{name:<41}{expected!s:>7} M{got:>10}{difference:>+10.2f} %   {source}")
