"""One of two processes in which everything goes wrong that can go wrong in one of them alone.

Usage: python one_fails.py FOLDER, with the CONDCONV variables set. Each case is a run of six steps
of its own, in the folder of its name; prints what it raised. FOLDER/in_use is locked by another.
"""

import sys
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 1)

from condconv_jax import runtime, training  # noqa: E402 - must not touch a device
from condconv_jax.runtime import digests  # noqa: E402  after the number of devices is set

runtime.initialize_distributed(heartbeat_timeout_seconds=20)

from linear_task import LinearTask, Problem  # noqa: E402  touches a device: after joining

INDEX = jax.process_index()
WRITE_DIGESTS = digests.write


def parts(batches):
    for batch in batches:
        yield {name: array[8 * INDEX : 8 * INDEX + 8] for name, array in batch.items()}


class Half(Problem):
    """This process' eight rows of each batch of 16."""

    def train_batches(self, start):
        return parts(super().train_batches(start))

    def eval_batches(self):
        return parts(super().eval_batches())


class BadPicture(Half):
    def train_batches(self, start):
        for number, batch in enumerate(super().train_batches(start), start // 16 + 1):
            if (INDEX, number) == (1, 4):
                raise KeyError("no 4.png")
            yield batch


class BadValidation(Half):
    def eval_batches(self):
        for number, batch in enumerate(super().eval_batches()):
            if (INDEX, number) == (1, 1):
                raise ValueError("cannot decode val.png")
            yield batch


class FullLog:
    """In process 0 alone, as every writer; refuses the row of step 3."""

    def write(self, step, scalars, kind="train"):
        if step == 3:
            raise OSError("no space for a row")

    def close(self):
        pass


def refuse(folder):
    raise OSError(f"no space for the digests of {folder.name}")


def run(name, problem, *writers):
    workdir = runtime.WorkDir(Path(sys.argv[1]) / name)
    try:
        with (
            workdir.lock(),
            runtime.Checkpoints(workdir.checkpoints, keep_best=0) as checkpoints,
            runtime.Writers(*writers) as joined,
        ):
            training.train(
                LinearTask(),
                training.make_optimizer("sgd", 0.05, weight_decay=1e-3, decay="all"),
                problem.train_batches,
                problem.eval_batches,
                # Rows of steps 3 and 6, evaluations of 4 and 6, checkpoints of 2, 4 and 6.
                settings=training.LoopSettings(6, 16, 32, 3, 4, 2),
                mesh=runtime.make_mesh(),
                key=jax.random.key(7),
                checkpoints=checkpoints,
                writers=joined,
            )
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"{name}: done", flush=True)


run("in_use", Half())
run("data", BadPicture())
run("evaluation", BadValidation())
run("log", Half(), FullLog())
digests.write = refuse
run("save", Half())
digests.write = WRITE_DIGESTS
run("nothing", Half())
