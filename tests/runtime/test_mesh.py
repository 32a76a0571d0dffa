import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax.runtime import (
    batch_sharding,
    initialize_distributed,
    make_mesh,
    put_batch,
    replicated,
)

LAUNCHERS = ("CONDCONV_", "SLURM_", "OMPI_", "TPU_", "MEGASCALE_")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)


@pytest.fixture
def initialize_calls(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **kwargs: calls.append(kwargs))
    return calls


def test_one_process_is_left_alone(initialize_calls):
    assert not initialize_distributed()
    assert not initialize_calls


def test_arguments_join(initialize_calls):
    assert initialize_distributed("host:1234", 2, 1, heartbeat_timeout_seconds=7)
    assert initialize_calls == [
        {
            "coordinator_address": "host:1234",
            "num_processes": 2,
            "process_id": 1,
            "heartbeat_timeout_seconds": 7,
            "shutdown_timeout_seconds": 7,
        }
    ]


def test_own_variables_join(initialize_calls, monkeypatch):
    monkeypatch.setenv("CONDCONV_COORDINATOR", "host:1234")
    monkeypatch.setenv("CONDCONV_NUM_PROCESSES", "3")
    monkeypatch.setenv("CONDCONV_PROCESS_ID", "2")
    assert initialize_distributed()
    (call,) = initialize_calls
    assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == (
        "host:1234",
        3,
        2,
    )


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "8"}, False),  # a shell in an allocation; no step was launched
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
        ({"CONDCONV_COORDINATOR": "auto"}, True),
    ],
)
def test_launchers(initialize_calls, monkeypatch, environment, joins):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert initialize_distributed() == joins
    # JAX reads the rest from the launcher.
    waits = {"heartbeat_timeout_seconds": 100, "shutdown_timeout_seconds": 100}
    assert initialize_calls == [waits] * joins


def test_launcher_that_jax_cannot_read(monkeypatch):
    def refuse(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"coordinator_address should be.*set CONDCONV_COORD"):
        initialize_distributed()


def test_incomplete_arguments():
    with pytest.raises(ValueError, match=r"num_processes None, process_id None; give all three"):
        initialize_distributed("host:1234")


def test_incomplete_variables(monkeypatch):
    monkeypatch.setenv("CONDCONV_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="coordinator_address is None, num_processes 2"):
        initialize_distributed()


def test_variable_that_is_no_number(monkeypatch):
    monkeypatch.setenv("CONDCONV_PROCESS_ID", "first")
    with pytest.raises(ValueError, match=r"CONDCONV_PROCESS_ID is 'first'; set it to a whole"):
        initialize_distributed()


def test_process_id_out_of_range():
    with pytest.raises(ValueError, match="process_id is 2, num_processes 2; number the processes"):
        initialize_distributed("host:1234", 2, 2)


def test_mesh_has_one_auto_axis():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": 8}
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,)
    assert make_mesh(jax.devices()[:2]).size == 2


def test_mesh_without_devices():
    with pytest.raises(ValueError, match="make_mesh: no devices"):
        make_mesh([])


def test_put_batch_splits_the_leading_axis():
    mesh = make_mesh()
    batch = {
        "image": np.arange(16 * 3, dtype=np.float32).reshape(16, 3),
        "boxes": {"label": np.arange(16)},
    }
    placed = put_batch(batch, mesh)
    assert placed["image"].sharding == batch_sharding(mesh)
    assert {s.data.shape for s in placed["image"].addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(placed["image"], batch["image"])
    np.testing.assert_array_equal(placed["boxes"]["label"], batch["boxes"]["label"])


def test_replicated_parameters_meet_a_split_batch():
    mesh = make_mesh()
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    w = jax.device_put(np.eye(4, dtype=np.float32), replicated(mesh))
    y = jax.jit(jnp.dot)(put_batch({"x": x}, mesh)["x"], w)
    np.testing.assert_array_equal(y, x)
    assert y.sharding.is_equivalent_to(batch_sharding(mesh), y.ndim)


def test_put_batch_that_does_not_divide():
    with pytest.raises(ValueError, match=r"has 6 examples.*8 devices; use a multiple of 8.*pad"):
        put_batch({"image": np.zeros((6, 2))}, make_mesh())


def test_put_batch_with_unequal_axes():
    batch = {"image": np.zeros((8, 2)), "label": np.zeros(4)}
    with pytest.raises(ValueError, match=r"leading axes are \[image 8, label 4\]; every array"):
        put_batch(batch, make_mesh())


def test_put_batch_with_a_scalar():
    with pytest.raises(ValueError, match="epoch none"):
        put_batch({"epoch": np.float32(1), "label": np.zeros(8)}, make_mesh())
