import subprocess
import sys
import warnings

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from condconv_jax.runtime import (
    Checkpoints,
    batch_sharding,
    find_checkpoint,
    load_tree,
    make_mesh,
    replicated,
    restore,
)

TRANSFORM = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(1e-3), optax.ema(0.9, accumulator_dtype=jnp.float32)
)


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    average: dict | None = None


def make_state():
    params = {
        "conv": {"kernel": jnp.arange(24.0).reshape(8, 3), "bias": jnp.ones(3, jnp.bfloat16) / 3},
        "head": {"kernel": jnp.ones((3, 2))},
    }
    opt_state = TRANSFORM.init(params)
    _, opt_state = TRANSFORM.update(params, opt_state, params)
    return State(jnp.int32(7), params, {}, opt_state)


def save(workdir, *steps):
    state = make_state()
    with Checkpoints(workdir / "checkpoints", keep_last=5) as checkpoints:
        for step in steps:
            checkpoints.save(step, state.replace(step=jnp.int32(step)))
    return state


def assert_equal_trees(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_optimiser_state_and_bfloat16_come_back_as_they_were(tmp_path):
    state = save(tmp_path, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = restore(tmp_path, jax.eval_shape(make_state))
    assert isinstance(got, State)
    assert_equal_trees(got, state)


def test_restores_onto_the_shardings_asked_for(tmp_path):
    state = save(tmp_path, 7)
    mesh = make_mesh()

    def place(x):
        split = x.ndim == 2 and x.shape[0] % 8 == 0
        sharding = batch_sharding(mesh) if split else replicated(mesh)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    got = restore(tmp_path, jax.tree.map(place, jax.eval_shape(make_state)))
    assert_equal_trees(got, state)
    assert got.params["conv"]["kernel"].sharding == NamedSharding(mesh, PartitionSpec("data"))
    assert len(got.params["head"]["kernel"].sharding.device_set) == 8


READ_ELSEWHERE = """
import sys, warnings
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
warnings.simplefilter("error")
from condconv_jax.runtime import load_tree, make_mesh, replicated, restore
place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(make_mesh()))
want = jnp.arange(24.0).reshape(8, 3)
tree = {"w": jax.eval_shape(lambda: want)}
for got in (restore(sys.argv[1], tree), restore(sys.argv[1], jax.tree.map(place, tree)),
            load_tree(sys.argv[1])):
    assert (got["w"] == want).all(), got
print(jax.device_count())
"""


def test_eight_devices_save_two_read(tmp_path):
    w = jax.device_put(jnp.arange(24.0).reshape(8, 3), batch_sharding(make_mesh()))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": w})
    done = subprocess.run(
        [sys.executable, "-c", READ_ELSEWHERE, str(tmp_path), "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_every_difference_is_named_at_once(tmp_path):
    save(tmp_path, 7)
    abstract = jax.eval_shape(make_state)
    abstract.params["head"]["bias"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    abstract.params["head"]["kernel"] = jax.ShapeDtypeStruct((3, 10), jnp.float32)
    abstract.params["conv"]["bias"] = jax.ShapeDtypeStruct((3,), jnp.float32)
    del abstract.params["conv"]["kernel"]
    with pytest.raises(ValueError, match="does not fit the state") as caught:
        restore(tmp_path, abstract)
    assert str(caught.value).splitlines()[1:] == [
        "  params/head/bias: missing, wanted float32(2,)",
        "  params/conv/kernel: extra, saved float32(8, 3)",
        "  params/conv/bias: saved bfloat16(3,), wanted float32(3,)",
        "  params/head/kernel: saved float32(3, 2), wanted float32(3, 10)",
        "use the config that saved it; to start another model from its weights use load_tree",
    ]


def test_another_optimiser_is_named(tmp_path):
    save(tmp_path, 7)
    abstract = jax.eval_shape(make_state)
    other = abstract.replace(opt_state=jax.eval_shape(optax.sgd(0.1).init, abstract.params))
    with pytest.raises(ValueError, match="opt_state/1/0/count: extra, saved int32"):
        restore(tmp_path, other)


def test_load_tree_needs_no_target(tmp_path):
    state = save(tmp_path, 7)
    tree = load_tree(tmp_path)
    assert set(tree) == {"step", "params", "batch_stats", "opt_state", "average"}
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(tree))
    assert tree["step"] == 7
    assert tree["batch_stats"] == {}
    assert tree["average"] is None
    assert_equal_trees(tree["params"], jax.tree.map(np.asarray, state.params))
    np.testing.assert_array_equal(
        tree["opt_state"][1][0]["mu"]["conv"]["kernel"],
        state.opt_state[1][0].mu["conv"]["kernel"],
    )


def test_load_tree_of_some_names(tmp_path):
    state = save(tmp_path, 7)
    tree = load_tree(tmp_path, only=("params", "batch_stats"))
    assert set(tree) == {"params", "batch_stats"}
    assert_equal_trees(tree["params"], jax.tree.map(np.asarray, state.params))


def test_load_tree_of_an_unknown_name(tmp_path):
    save(tmp_path, 7)
    with pytest.raises(ValueError, match=r"has no weights; it has average, batch_stats, opt_st"):
        load_tree(tmp_path, only=["weights"])


def test_find_checkpoint_in_any_of_three_ways(tmp_path):
    save(tmp_path, 3, 12)
    folder = tmp_path / "checkpoints"
    assert find_checkpoint(tmp_path) == (folder, 12)
    assert find_checkpoint(str(folder)) == (folder, 12)
    assert find_checkpoint(folder / "3") == (folder, 3)
    assert find_checkpoint(tmp_path, 3) == (folder, 3)
    assert find_checkpoint(folder / "3", 3) == (folder, 3)
    assert load_tree(folder / "3")["step"] == 3


def test_work_directory_named_by_a_number(tmp_path):
    save(tmp_path / "5", 3)
    assert find_checkpoint(tmp_path / "5") == (tmp_path / "5" / "checkpoints", 3)


def test_looking_changes_nothing(tmp_path):
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*; pass a work directory"):
        find_checkpoint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["4.orbax-checkpoint-tmp"]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; pass a work directory"):
        find_checkpoint(tmp_path / "nowhere")


def test_no_such_step(tmp_path):
    save(tmp_path, 3, 12)
    with pytest.raises(FileNotFoundError, match=r"no step 4 in .*; there is 3, 12"):
        find_checkpoint(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match="no step 4"):
        restore(tmp_path, jax.eval_shape(make_state), 4)


def test_folder_of_another_step(tmp_path):
    save(tmp_path, 3)
    with pytest.raises(ValueError, match="is step 3, asked for step 4; pass the work directory"):
        find_checkpoint(tmp_path / "checkpoints" / "3", 4)
