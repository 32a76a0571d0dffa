"""One process of a run in double precision, over all its devices.

Usage: python in_float64.py WORKDIR [--config.KEY=VALUE ...], with the CONDCONV variables set where
there are several processes. Everything is what `condconv train` does, but for the dtype.
"""

import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

from condconv_jax import config as configs  # noqa: E402 - must not touch a device
from condconv_jax import runtime, training  # noqa: E402
from condconv_jax.cli.flags import config_from_file  # noqa: E402
from condconv_jax.tasks import Classification  # noqa: E402

CONFIG = "configs/fashion_mnist/mobilenet_v1.py:condconv"


class InFloat64(Classification):
    """Parameters, state and loss in float64; the network computes in its own dtype."""

    def init(self, key):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), super().init(key))

    def loss(self, params, model_state, batch, key):
        loss, (model_state, metrics) = super().loss(params, model_state, batch, key)
        # Metrics are summed in float32, which would be all that a test could see.
        size = jnp.int32(len(batch["label"]))
        return loss, (model_state, {**metrics, "loss": runtime.Sum(loss * size, size)})


def main(path, *overrides):
    runtime.initialize_distributed(heartbeat_timeout_seconds=10)
    config = config_from_file(CONFIG, overrides).to_dict()
    experiment = configs.build(config)
    options = configs.train_options(config, experiment.train_source)
    task = experiment.task
    task = InFloat64(
        model=task.model.clone(dtype=jnp.float64),
        image_size=task.image_size,
        mean=task.mean,
        std=task.std,
    )
    workdir, settings = runtime.WorkDir(path), options.settings
    with (
        workdir.lock(),
        runtime.Checkpoints(workdir.checkpoints, keep_last=100) as checkpoints,
        runtime.make_writers(
            workdir,
            total_steps=settings.total_steps,
            batch_size=settings.batch_size,
            resume_step=checkpoints.latest_step(),
        ) as writers,
    ):
        state = training.train(
            task,
            options.optimizer,
            options.train_batches,
            experiment.eval_batches,
            settings=settings,
            mesh=runtime.make_mesh(),
            key=jax.random.key(config["seed"]),
            checkpoints=checkpoints,
            writers=writers,
        )
    wide = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.model_state))}
    assert wide == {jnp.dtype(jnp.float64)}, wide
    print(f"done {jax.process_index()} of {jax.process_count()}, {jax.device_count()} devices")


if __name__ == "__main__":
    main(*sys.argv[1:])
