"""Memory of a training step on eight devices whose experts are whole or in parts.

    python benchmarks/expert_parts.py [--model=mobilenet_v1 --num-experts=32 --batch=256]

Read from the compiled program of eight CPU devices; nothing is run. With RMSProp and moving
averages, four arrays of each parameter; the step updates them in place.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

from condconv_jax import models, runtime, tasks, training

DEVICES = 8
GIB = 1 << 30


def step_memory(model: object, batch: int, image_size: int, parts: int) -> tuple[int, int]:
    """Returns bytes on each device: of the state, and of what the step needs beside it."""
    task = tasks.Classification(model, image_size, mean=(0.5,) * 3, std=(0.25,) * 3)
    optimizer = training.make_optimizer("rmsprop", 0.01)
    mesh = runtime.make_mesh(expert_parts=parts)
    with jax.set_mesh(mesh):
        make = functools.partial(training.init_state, task, optimizer, averages=True)
        shapes = jax.eval_shape(make, jax.random.key(0))
        shardings = training.state_shardings(shapes, mesh)
        state = jax.tree.map(
            lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
            shapes,
            shardings,
        )
        split = runtime.batch_sharding(mesh)
        images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8, sharding=split)
        labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=split)
        step = jax.jit(
            functools.partial(training.train_step, task, optimizer, average_decay=0.9999),
            donate_argnums=0,
            out_shardings=(shardings, None),
        )
        key = jax.eval_shape(jax.random.key, 0)
        compiled = step.lower(state, {"image": images, "label": labels}, key).compile()
    memory = compiled.memory_analysis()
    return memory.alias_size_in_bytes, memory.temp_size_in_bytes


def main() -> None:
    """Prints a row for each number of parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mobilenet_v1")
    parser.add_argument("--num-experts", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256, help="examples, over all devices")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    model = models.create(arguments.model, num_experts=arguments.num_experts)
    print("| devices that share experts | state, GiB a device | temporary, GiB a device |")
    print("|--:|--:|--:|")
    for parts in (1, 2, 4, 8):
        state, temporary = step_memory(model, arguments.batch, arguments.image_size, parts)
        print(f"| {parts} | {state / GIB:.2f} | {temporary / GIB:.2f} |", flush=True)


if __name__ == "__main__":
    main()
