"""`condconv convert`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condconv_jax import interop
    from condconv_jax.models.network import Network

HELP = """Weights in and out. What is read becomes a work directory, to be evaluated, analysed,
fine-tuned (--config.init_from=DIR) or upcycled. Nothing in a file is executed."""
EXAMPLE = """condconv convert --from-timm=model.safetensors --network=tf_efficientnet_cc_b0_4e \\
      --workdir=runs/cc
  condconv convert --from-tensorflow=FOLDER --network=efficientnet-condconv-b0-8e --workdir=runs/cc
  condconv convert --from-static=runs/static --num-experts=8 --workdir=runs/upcycled
  condconv convert --to-timm=model.safetensors --network=tf_efficientnet_cc_b0_4e --workdir=runs/cc
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--from-timm",
        metavar="FILE",
        help="state dict: .safetensors, or a weights-only PyTorch file",
    )
    what.add_argument(
        "--from-tensorflow", metavar="PREFIX", help="checkpoint of the official EfficientNet code"
    )
    what.add_argument(
        "--from-static",
        metavar="DIR",
        help="run of a static network, to become CondConv (upcycling)",
    )
    what.add_argument(
        "--to-timm", metavar="FILE", help="write the weights of --workdir for timm, .safetensors"
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="work directory")
    parser.add_argument(
        "--network", metavar="NAME", help="timm's name of the network, or the official code's"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        default=None,
        help="of TensorFlow: the weights, not their moving averages",
    )
    parser.add_argument("--num-experts", type=int, metavar="E", help="of upcycling (default: 8)")
    parser.add_argument(
        "--noise",
        type=float,
        metavar="RATIO",
        help="of upcycling: what tells experts apart, over their root mean square (default: 1)",
    )
    parser.add_argument("--seed", type=int, help="of upcycling's noise (default: 0)")
    parser.add_argument(
        "--best",
        action="store_true",
        default=None,
        help="of a run: the best checkpoint, not the last",
    )


# Which options each way takes.
TAKES = {
    "from_timm": {"network"},
    "from_tensorflow": {"network", "raw"},
    "from_static": {"num_experts", "noise", "seed", "best"},
    "to_timm": {"network", "best"},
}


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Converts, and prints what was made of what."""
    way = next(name for name in TAKES if getattr(arguments, name) is not None)
    for option in sorted(set.union(*TAKES.values()) - TAKES[way]):
        if getattr(arguments, option) is not None:
            raise ValueError(f"{_flag(option)} says nothing with {_flag(way)}; leave it out")
    if "network" in TAKES[way] and not arguments.network:
        raise ValueError("convert: no --network; pass timm's name of it, or the official code's")
    if way == "to_timm":
        if overrides:
            raise ValueError(f"unknown argument {overrides[0]!r}; the config is that of the run")
        _to_timm(arguments)
    elif way == "from_static":
        _upcycle(arguments, overrides)
    else:
        _read(arguments, overrides)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _read(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Weights from a file of others."""
    from condconv_jax import interop
    from condconv_jax.cli.flags import config_from_dict
    from condconv_jax.cli.runs import write_run

    for override in overrides:
        if override.startswith("--config.model."):
            raise ValueError(f"{override}: the network's options come with its name; leave it out")
    network: interop.TimmNetwork | interop.OfficialNetwork
    if arguments.from_timm is not None:
        source, name = arguments.from_timm, arguments.network
        model, variables = interop.read_timm(source, name)
        network, weights = interop.find_timm(name), "timm's"
    else:
        source, name = arguments.from_tensorflow, arguments.network
        model, variables = interop.read_official(source, name, ema=not arguments.raw)
        network = interop.OFFICIAL[name]
        weights = "TensorFlow's, " + ("as they are" if arguments.raw else "moving averages")
    config = config_from_dict(_config(network, model), overrides).to_dict()
    origin = {"file": str(source), "network": name, "weights": weights}
    write_run("convert", arguments.workdir, config, variables, {"converted_from": origin})
    data = config["data"]
    print(
        f"{arguments.workdir}: {name} from {source}, {model.num_classes} classes, "
        f"{_count(variables):,} parameters\n"
        f"images: {data['image_size']} pixels, normalised as {data['statistics']!r}, as the first "
        "published weights of this network; other ones may want "
        "--config.data.statistics=... --config.data.image_size=..."
    )
    _say_next(arguments.workdir)


def _upcycle(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    from condconv_jax import config as configs
    from condconv_jax import interop
    from condconv_jax.cli.flags import config_from_dict
    from condconv_jax.cli.runs import write_run
    from condconv_jax.cli.trained import load_weights
    from condconv_jax.nn import variable_shapes

    source = load_weights(arguments.from_static, best=bool(arguments.best))
    key = "--config.model.num_experts="
    if not any(override.startswith(key) for override in overrides):
        num_experts = 8 if arguments.num_experts is None else arguments.num_experts
        overrides = [f"{key}{num_experts}", *overrides]
    elif arguments.num_experts is not None:
        raise ValueError(f"--num-experts and {key}... say the same; pass one of them")
    # Where the static network came from is not where this one does.
    config = config_from_dict({**source.config, "init_from": ""}, overrides).to_dict()
    model = configs.make_model(config["model"], source.model.num_classes)
    variables = variable_shapes(model, config["data"]["image_size"])
    noise = interop.NOISE if arguments.noise is None else arguments.noise
    seed = arguments.seed or 0
    upcycled = interop.upcycle(source.variables, model, variables, noise=noise, seed=seed)
    origin = {
        "static_run": str(source.workdir.path),
        "step": source.step,
        "noise": noise,
        "seed": seed,
    }
    facts = {**source.workdir.read_facts(), "converted_from": origin}
    write_run("convert", arguments.workdir, config, upcycled, facts)
    print(
        f"{arguments.workdir}: {source.workdir.path}, step {source.step}, with "
        f"{model.num_experts} experts in {len(model.conditional_layers())} layers, "
        f"{_count(source.variables):,} -> {_count(upcycled):,} parameters"
    )
    _say_next(arguments.workdir)


def _to_timm(arguments: argparse.Namespace) -> None:
    from condconv_jax import interop
    from condconv_jax.cli.trained import load_weights

    source = load_weights(arguments.workdir, best=bool(arguments.best))
    state = interop.to_timm(arguments.network, source.model, source.variables)
    interop.write_safetensors(arguments.to_timm, state)
    statistics = source.config["data"]["statistics"]
    print(
        f"{arguments.to_timm}: {source.workdir.path}, step {source.step}, for "
        f"timm.create_model({arguments.network!r}, num_classes={source.model.num_classes}, "
        f"checkpoint_path={arguments.to_timm!r}); images normalised by data.STATISTICS"
        f"[{statistics!r}]"
    )


def _config(
    network: "interop.TimmNetwork | interop.OfficialNetwork", model: "Network"
) -> dict[str, Any]:
    """A config of a network that was read, on a folder of images."""
    import dataclasses

    from condconv_jax.config import classification

    config = classification(network.model)
    for key in config.model:
        if key not in ("name", "dtype", "routing"):
            config.model[key] = getattr(model, key)
    config.model.routing.update(dataclasses.asdict(model.routing))
    config.data.name = "folder"
    config.data.path = "pictures"
    config.data.eval = "val"
    config.data.image_size = network.image_size
    config.data.crop = "resized"
    config.data.statistics = network.statistics
    return config.to_dict()


def _count(variables: Mapping[str, Any]) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _say_next(workdir: str) -> None:
    print(f"to train on from it: condconv train ... --config.init_from={workdir}")
