"""`condconv train`."""

import argparse
from collections.abc import Sequence
from typing import Any

HELP = """Train a network. If the work directory holds a checkpoint of the same config, the run goes
on from it exactly as if it had never been interrupted."""
EXAMPLE = """condconv train --config=configs/fashion_mnist/mobilenet_v1.py:condconv \\
      --config.model.num_experts=16 --workdir=runs/experts16"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="what to train")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where the run is kept")


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Trains to the end and prints where the results are."""
    import jax

    from condconv_jax import config as configs
    from condconv_jax import runtime, training
    from condconv_jax.cli.flags import config_from_file

    config = config_from_file(arguments.config, overrides).to_dict()
    runtime.initialize_distributed()
    experiment = configs.build(config)
    assert experiment.train_source is not None
    options = configs.train_options(config, experiment.train_source)
    mesh = runtime.make_mesh()
    for key in ("batch_size", "eval_batch_size"):
        if config[key] % mesh.size:
            raise ValueError(
                f"config.{key} is {config[key]}, devices are {mesh.size}; pass a multiple of them"
            )
    workdir = runtime.WorkDir(arguments.workdir)
    with workdir.lock():
        if workdir.config.exists():
            runtime.check_same_config(workdir.read_config(), config, configs.MAY_CHANGE)
        start_from = _start_from(config["init_from"])
        with runtime.Checkpoints(
            workdir.checkpoints, keep_last=config["keep_last"], keep_best=config["keep_best"]
        ) as checkpoints:
            resumed = checkpoints.latest_step()
            workdir.write_config(config)
            settings = options.settings
            _announce(config, experiment, settings.total_steps, resumed, workdir.path)
            with runtime.make_writers(
                workdir,
                total_steps=settings.total_steps,
                batch_size=settings.batch_size,
                resume_step=resumed,
            ) as writers:
                training.train(
                    experiment.task,
                    options.optimizer,
                    options.train_batches,
                    experiment.eval_batches,
                    settings=settings,
                    mesh=mesh,
                    key=jax.random.key(config["seed"]),
                    checkpoints=checkpoints,
                    writers=writers,
                    start_from=start_from,
                )
    print(f"done: {settings.total_steps} steps, everything is in {workdir.path}")


def _announce(config: dict, experiment: Any, total: int, resumed: int | None, path: Any) -> None:
    model, experts = config["model"]["name"], config["model"]["num_experts"]
    kind = f"{experts} experts" if experts > 1 else "static"
    print(
        f"{model} ({kind}) on {len(experiment.train_source)} images of "
        f"{len(experiment.class_names)} classes; {total} steps; work directory {path}"
    )
    if resumed is not None:
        print(f"going on from step {resumed}")


def _start_from(path: str) -> Any:
    """How the initial state takes over the weights of `config.init_from`."""
    from condconv_jax import runtime, training

    if not path:
        return lambda state: state
    # Before training starts, so that a wrong path costs nothing.
    source = runtime.load_tree(path, only=("params", "model_state"))

    def start_from(state: training.TrainState) -> training.TrainState:
        params, kept = training.transfer(state.params, source["params"])
        model_state, _ = training.transfer(state.model_state, source["model_state"], replace=())
        new = f"; starts anew: {', '.join(kept)}" if kept else ""
        print(f"weights from {path}{new}")
        return state.replace(params=params, model_state=model_state)

    return start_from
