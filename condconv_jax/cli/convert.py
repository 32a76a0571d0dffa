"""`condconv convert`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        "--raw", action="store_true", help="of TensorFlow: the weights, not their moving averages"
    )
    parser.add_argument(
        "--num-experts", type=int, default=8, metavar="E", help="of upcycling (default: 8)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="RATIO",
        help="of upcycling: what tells experts apart, over their root mean square (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of upcycling's noise (default: 0)")
    parser.add_argument(
        "--best", action="store_true", help="of a run: the best checkpoint, not the last"
    )


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Converts, and prints what was made of what."""
    if arguments.from_static:
        _upcycle(arguments, overrides)
        return
    if overrides:
        raise ValueError(
            f"unknown argument {overrides[0]!r}; keys of a config go with --from-static"
        )
    if not arguments.network:
        raise ValueError("convert: no --network; pass timm's name of it, or the official code's")
    if arguments.to_timm:
        _to_timm(arguments)
    elif arguments.from_timm:
        _from_timm(arguments)
    else:
        _from_tensorflow(arguments)


def _from_timm(arguments: argparse.Namespace) -> None:
    from condconv_jax import interop

    model, variables = interop.read_timm(arguments.from_timm, arguments.network)
    network = interop.TIMM[arguments.network.partition(".")[0]]
    config = _config(network.model, model, network.statistics, network.image_size)
    _write(arguments.workdir, config, variables)
    _say_read(arguments, arguments.from_timm, model, variables)


def _from_tensorflow(arguments: argparse.Namespace) -> None:
    from condconv_jax import interop

    path = arguments.from_tensorflow
    model, variables = interop.read_official(path, arguments.network, ema=not arguments.raw)
    network = interop.OFFICIAL[arguments.network]
    config = _config(network.model, model, network.statistics, network.image_size)
    _write(arguments.workdir, config, variables)
    _say_read(arguments, path, model, variables)


def _upcycle(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    import jax
    import jax.numpy as jnp

    from condconv_jax import config as configs
    from condconv_jax import interop
    from condconv_jax.cli.flags import config_from_dict
    from condconv_jax.cli.trained import load_weights

    source = load_weights(arguments.from_static, best=arguments.best)
    experts = f"--config.model.num_experts={arguments.num_experts}"
    config = config_from_dict(source.config, [experts, *overrides]).to_dict()
    model = configs.make_model(config["model"], source.model.num_classes)
    size = config["data"]["image_size"]
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    noise = interop.NOISE if arguments.noise is None else arguments.noise
    upcycled = interop.upcycle(source.variables, model, variables, noise=noise, seed=arguments.seed)
    _write(arguments.workdir, config, upcycled, source.workdir.read_facts())
    layers = len(model.conditional_layers())
    print(
        f"{arguments.workdir}: {source.workdir.path}, step {source.step}, with "
        f"{arguments.num_experts} experts in {layers} layers, "
        f"{_count(source.variables):,} -> {_count(upcycled):,} parameters"
    )
    _say_next(arguments.workdir)


def _to_timm(arguments: argparse.Namespace) -> None:
    from condconv_jax import interop
    from condconv_jax.cli.trained import load_weights

    source = load_weights(arguments.workdir, best=arguments.best)
    state = interop.to_timm(arguments.network, source.model, source.variables)
    interop.write_safetensors(arguments.to_timm, state)
    statistics = source.config["data"]["statistics"]
    print(
        f"{arguments.to_timm}: {source.workdir.path}, step {source.step}, for "
        f"timm.create_model({arguments.network!r}, num_classes={source.model.num_classes}, "
        f"checkpoint_path={arguments.to_timm!r}); images normalised by data.STATISTICS"
        f"[{statistics!r}]"
    )


def _config(name: str, model: "Network", statistics: str, size: int) -> dict[str, Any]:
    """A config of the network on a folder of images."""
    import dataclasses

    from condconv_jax.config import classification

    config = classification(name)
    for key, value in config.model.items():
        if key not in ("name", "dtype", "routing"):
            value = getattr(model, key)
            config.model[key] = value
    for key in config.model.routing:
        config.model.routing[key] = dataclasses.asdict(model.routing)[key]
    config.data.name = "folder"
    config.data.path = "pictures"
    config.data.eval = "val"
    config.data.image_size = size
    config.data.crop = "resized"
    config.data.statistics = statistics
    return config.to_dict()


def _write(
    path: str,
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes a work directory whose only checkpoint is step 0."""
    import numpy as np

    from condconv_jax import runtime, training

    workdir = runtime.WorkDir(path)
    with workdir.lock(), runtime.Checkpoints(workdir.checkpoints) as checkpoints:
        if (step := checkpoints.latest_step()) is not None:
            raise ValueError(
                f"convert: {workdir.path} holds a checkpoint of step {step}; pass another --workdir"
            )
        workdir.write_config(config)
        if facts:
            workdir.write_facts(facts)
        model_state = {key: value for key, value in variables.items() if key != "params"}
        start = np.zeros((), np.int32)
        checkpoints.save(0, training.TrainState(start, variables["params"], model_state, ()))


def _count(variables: Mapping[str, Any]) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _say_read(
    arguments: argparse.Namespace, source: str, model: "Network", variables: Mapping[str, Any]
) -> None:
    print(
        f"{arguments.workdir}: {arguments.network} from {source}, {model.num_classes} classes, "
        f"{_count(variables):,} parameters"
    )
    _say_next(arguments.workdir)


def _say_next(workdir: str) -> None:
    print(f"to train on from it: condconv train ... --config.init_from={workdir}")
