"""One process of a run: sums a batch over all of them, saves, and takes the lock and writers.

Usage: python one_of_several.py WORKDIR, with the CONDCONV variables set.
"""

import sys

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 2)

from condconv_jax import runtime  # noqa: E402  must not touch a device

assert runtime.initialize_distributed(heartbeat_timeout_seconds=10)
assert runtime.initialize_distributed()  # a second call does nothing
index = jax.process_index()
mesh = runtime.make_mesh()
assert mesh.size == 4

# Examples 0..7, of which process 0 has the first four; example 7 is padding.
local = np.arange(4, dtype=np.float32) + 4 * index
batch = runtime.put_batch({"x": local, "mask": local < 7}, mesh)
on_mesh = {"m": jax.jit(runtime.sum_of)(batch["x"], batch["mask"])}
assert runtime.compute(on_mesh) == {"m": 3.0}

# What goes wrong in one goes wrong in both, at the same call; every third goes wrong in none.
for call in range(30):

    def work(call=call):
        if index == call % 3:
            raise KeyError(f"call {call}")
        return call

    if call % 3 == 2:
        assert runtime.agreed(work) == call
        continue
    told = KeyError if index == call % 3 else runtime.OtherProcessError
    said = f"'call {call}'" if index == call % 3 else f"process {call % 3} failed: 'call {call}'"
    with pytest.raises(told, match=f"^{said}$"):
        runtime.agreed(work)

workdir = runtime.WorkDir(sys.argv[1])
with workdir.lock():
    workdir.write_config({"processes": 2})
    with (
        runtime.Checkpoints(workdir.checkpoints) as checkpoints,
        runtime.make_writers(workdir, total_steps=2, batch_size=8) as writers,
    ):
        for step in (1, 2):
            writers.write(step, runtime.compute(on_mesh))
            checkpoints.save(step, {"x": batch["x"]}, metrics={"top1": 1 / step})
        assert checkpoints.all_steps() == [1, 2]
        assert checkpoints.best_step() == 1
        place = jax.ShapeDtypeStruct((8,), np.float32, sharding=runtime.batch_sharding(mesh))
        restored = checkpoints.restore({"x": place})["x"]
    for shard in restored.addressable_shards:
        np.testing.assert_array_equal(shard.data, np.arange(8, dtype=np.float32)[shard.index])
print("done", index)
