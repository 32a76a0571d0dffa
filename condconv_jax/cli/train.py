"""`condconv train`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from condconv_jax.cli.processes import add_process_arguments, join_processes, say

HELP = """Train a network. If the work directory holds a checkpoint of the same config, the run goes
on from it exactly as if it had never been interrupted. SIGTERM or Ctrl-C saves and stops; a second
one stops at once."""
EXAMPLE = """condconv train --config=configs/fashion_mnist/mobilenet_v1.py:condconv \\
      --config.model.num_experts=16 --workdir=runs/experts16"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="what to train")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where the run is kept")
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="N",
        help="write a trace of N steps, after the first 10 of this start, to WORKDIR/profile, for "
        "TensorBoard or Perfetto; of several processes, to WORKDIR/profile/process_<index>",
    )
    add_process_arguments(parser)


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Trains to the end, or until asked to stop, and prints where the results are."""
    from condconv_jax import runtime, training

    join_processes(arguments)
    runtime.enable_compile_cache()
    runtime.hush_failed_saves()
    with runtime.StopRequests() as stop:
        try:
            _train(arguments, overrides, stop)
        except training.StoppedError as stopped:
            say(
                f"stopped by {stop.name} at step {stopped.step}; the same command goes on from "
                "there"
            )


def _train(arguments: argparse.Namespace, overrides: Sequence[str], stop: Any) -> None:
    import jax

    from condconv_jax import config as configs
    from condconv_jax import runtime, training
    from condconv_jax.cli.flags import config_from_file
    from condconv_jax.performance import machine

    config = config_from_file(arguments.config, overrides).to_dict()
    experiment = runtime.agreed(lambda: configs.build(config))
    assert experiment.train_source is not None
    options = configs.train_options(config, experiment.train_source)
    mesh = runtime.make_mesh(expert_parts=config["expert_parts"])
    _check_divides(config, mesh.size)
    facts = {
        "class_names": list(experiment.class_names),
        "train_images": len(experiment.train_source),
    }
    workdir = runtime.WorkDir(arguments.workdir)
    profiler = runtime.StepProfiler(workdir.path / "profile", arguments.profile)
    with (
        workdir.lock(),
        runtime.Checkpoints(
            workdir.checkpoints,
            keep_last=config["keep_last"],
            keep_best=config["keep_best"],
            best_metric=experiment.task.best_metric,
        ) as checkpoints,
    ):
        for sentence in checkpoints.damaged:
            say(f"note: {sentence}")
        resumed = checkpoints.latest_step()
        # Without a checkpoint there is nothing yet that another config could spoil.
        if resumed is None:
            start_from = _start_from(config, experiment)
        else:
            saved = configs.completed(workdir.read_config()).to_dict()
            runtime.check_same_config(saved, config, configs.MAY_CHANGE)
            workdir.check_facts(facts)
            start_from = _unchanged
        settings = options.settings
        evaluated = resumed is None or checkpoints.metrics(resumed) is not None

        def begin() -> runtime.Writers:
            workdir.write_config(config)
            workdir.write_facts(facts)
            workdir.write_done(None)
            _announce(config, experiment, settings.total_steps, resumed, workdir.path)
            if mesh.size > 1:
                kind = mesh.devices.flat[0].device_kind
                say(f"processes: {jax.process_count()}; devices of all: {mesh.size} ({kind})")
            return runtime.make_writers(
                workdir,
                total_steps=settings.total_steps,
                batch_size=settings.batch_size,
                resume_step=resumed,
                evaluated=evaluated,
            )

        with runtime.agreed(begin) as writers:
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
                learning_rate=options.learning_rate,
                start_from=start_from,
                stop=stop.reached,
                profiler=profiler,
            )
        workdir.write_done(settings.total_steps, machine.describe())
    if arguments.profile and not profiler.started:
        say("note: no trace: this start did no more than the steps that --profile lets pass")
    say(f"done: {settings.total_steps} steps, everything is in {workdir.path}")


def _check_divides(config: dict, devices: int) -> None:
    """Raises ValueError unless batches divide over devices and groups, and experts over devices."""
    from condconv_jax import models

    parts, kernels = config["expert_parts"], models.mixed_kernels(config["model"])
    for key, times in (("batch_size", config["micro_batches"]), ("eval_batch_size", 1)):
        if config[key] % (devices * times):
            also = f", config.micro_batches {times}" if times > 1 else ""
            raise ValueError(
                f"config.{key} is {config[key]}, devices are {devices}{also}; pass a multiple of "
                f"{devices * times}"
            )
    part = config["batch_size"] // config["micro_batches"]
    if (group := config["model"].get("batch_norm_group", 0)) and part % group:
        raise ValueError(
            f"config.model.batch_norm_group is {group}, {part} examples are computed at a time; "
            "pass a divisor of that, or 0 for batch norm over all of them"
        )
    if parts > 1 and (kernels < parts or kernels % parts):
        raise ValueError(
            f"config.expert_parts is {parts}, and a layer of the network mixes {kernels} kernels "
            f"({models.describe(config['model'])}); pass a divisor of their number"
        )


def _announce(config: dict, experiment: Any, total: int, resumed: int | None, path: Any) -> None:
    from condconv_jax import models

    model = config["model"]["name"]
    kind = models.describe(config["model"])
    say(
        f"{model} ({kind}) on {len(experiment.train_source)} images of "
        f"{len(experiment.class_names)} classes; {total} steps; work directory {path}"
    )
    if resumed is not None:
        say(f"going on from step {resumed}")


def _unchanged(state: Any) -> Any:
    return state


def _start_from(config: dict, experiment: Any) -> Callable[[Any], Any]:
    """How the initial state takes over the weights of `config.init_from`."""
    import jax

    from condconv_jax import runtime, training

    path = config["init_from"]
    if not path:
        return _unchanged
    source_params, source_state = training.weights_of(
        runtime.load_tree(path, only=training.WEIGHTS)
    )
    folder, _ = runtime.find_checkpoint(path)
    facts = runtime.WorkDir(folder.parent).read_facts()
    # Everything that can be wrong with it shows now, before anything is written.
    params, model_state = jax.eval_shape(experiment.task.init, jax.random.key(0))
    model = experiment.task.model
    backbone = _backbone(config, model, folder.parent)
    if backbone:
        renew = training.outside(backbone, params, source_params)
        renew_state = training.outside(backbone, model_state, source_state, within=1)
    else:
        # As many classes need not be the same ones.
        same_classes = facts.get("class_names") == list(experiment.class_names)
        renew = () if same_classes else model.classifiers()
        # Annealing starts anew, or there is none any more.
        renew_state = ("schedule",)

    def start_from(state: training.TrainState) -> training.TrainState:
        params, _ = training.transfer(state.params, source_params, renew=renew)
        model_state, _ = training.transfer(state.model_state, source_state, renew=renew_state)
        return state.replace(params=params, model_state=model_state)

    _, kept = training.transfer(params, source_params, renew=renew)
    if backbone:
        kept = list(dict.fromkeys(name.split("/")[0] for name in kept))
    say(f"weights from {path}; starts anew: {', '.join(kept) or 'nothing'}")
    _say_differences(config, folder.parent)
    return start_from


def _backbone(config: dict, model: Any, source: Path) -> tuple[str, ...]:
    """The modules to take of weights of another task; () of those of the same.

    Raises:
      ValueError: if the network has no part in common with one of that task.
    """
    from condconv_jax import runtime

    workdir = runtime.WorkDir(source)
    # Checkpoints without a config are taken for those of the same task.
    theirs = workdir.read_config()["task"] if workdir.config.exists() else config["task"]
    if theirs == config["task"]:
        return ()
    found = model.backbone() if hasattr(model, "backbone") else ()
    if not found:
        raise ValueError(
            f"config.init_from is a run of {theirs}, config.task {config['task']!r}; only a "
            "detector starts from weights of another task"
        )
    return found


def _say_differences(config: dict, source: Path) -> None:
    """Names what changes the meaning of weights taken over without changing their shapes."""
    from condconv_jax import runtime

    workdir = runtime.WorkDir(source)
    if not workdir.config.exists():
        return
    before = runtime.flatten_config(workdir.read_config())
    for key, now in runtime.flatten_config(config).items():
        # Another network has other options; which of them there are says nothing.
        if key not in before or key == "model.name":
            continue
        then = before[key]
        # A config.json has lists for tuples.
        now = list(now) if isinstance(now, tuple) else now
        if (key.startswith("model.") or key == "data.statistics") and then != now:
            say(f"note: {key} is {now} here, {then} in {source}")
