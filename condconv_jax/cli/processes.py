"""The arguments that make a command one process of several."""

import argparse
import os


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares them; under SLURM or on a TPU pod none is needed, under MPI the coordinator."""
    group = parser.add_argument_group(
        "several processes",
        "the same command in each; under SLURM none of these is needed, under mpirun --coordinator "
        "alone",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="a free port of process 0")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which this is, from 0")
    group.add_argument(
        "--heartbeat-timeout",
        type=int,
        default=100,
        metavar="SECONDS",
        help="after which a silent process counts as dead and the others end (default 100)",
    )


def join_processes(arguments: argparse.Namespace) -> None:
    """Joins the run; before anything touches a device.

    Raises:
      ValueError: if some of the arguments are missing, or contradict each other.
    """
    from condconv_jax import runtime

    given = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    # MPI tells how many there are and which this is.
    enough = arguments.coordinator is not None and runtime.launched_by_mpi(os.environ)[0]
    if None in given and any(value is not None for value in given) and not enough:
        names = ("--coordinator", "--num-processes", "--process-id")
        missing = [name for name, value in zip(names, given, strict=True) if value is None]
        raise ValueError(f"{', '.join(missing)} missing; pass all of {', '.join(names)}, or none")
    runtime.initialize_distributed(*given, heartbeat_timeout_seconds=arguments.heartbeat_timeout)


def say(text: str) -> None:
    """Prints once, however many processes there are."""
    import jax

    if jax.process_index() == 0:
        print(text, flush=True)
