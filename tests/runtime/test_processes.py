"""Processes that join a run: by variables and arguments, and two real ones."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from condconv_jax.runtime import (
    WorkDir,
    batch_sharding,
    initialize_distributed,
    make_mesh,
    processes,
    read_json_lines,
    restore,
)

SCRIPT = Path(__file__).with_name("one_of_several.py")
LAUNCHERS = ("CONDCONV_", "SLURM_", "OMPI_", "PMI_", "MPI_LOCAL", "TPU_", "MEGASCALE_", "JAX_LOCAL")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "variables",
    [
        {"CONDCONV_NUM_PROCESSES": "2", "CONDCONV_PROCESS_ID": "{}"},
        # What mpirun of Open MPI 5 sets.
        {
            "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_RANK": "{}",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            "OMPI_COMM_WORLD_LOCAL_RANK": "{}",
        },
    ],
    ids=["ours", "mpi"],
)
def test_two_processes_of_two_devices_and_then_one_of_eight(tmp_path, coordinator, variables):
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path)],
            env={
                **os.environ,
                "CONDCONV_COORDINATOR": coordinator,
                **{name: value.format(index) for name, value in variables.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate() for process in started]
    for index, (out, error) in enumerate(outputs):
        assert out.splitlines()[-1:] == [f"done {index}"], error

    workdir = WorkDir(tmp_path)
    assert workdir.read_config() == {"processes": 2}
    # Each line once: process 1 wrote nothing.
    assert [item["m"] for item in read_json_lines(workdir.metrics)] == [3.0, 3.0]
    assert "step 1/2" in outputs[0][1]
    assert "step" not in outputs[1][1]
    place = jax.ShapeDtypeStruct((8,), np.float32, sharding=batch_sharding(make_mesh()))
    np.testing.assert_array_equal(restore(tmp_path, {"x": place})["x"], np.arange(8))


@pytest.fixture
def initialize_calls(monkeypatch):
    calls = []
    monkeypatch.setattr(processes, "_check_meeting_place", lambda *_: None)
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
            "local_device_ids": None,
            "heartbeat_timeout_seconds": 7,
            "shutdown_timeout_seconds": 7,
            "initialization_timeout": 300,
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
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, False),
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
    call = {
        "local_device_ids": None,
        "heartbeat_timeout_seconds": 100,
        "shutdown_timeout_seconds": 100,
        "initialization_timeout": 300,
    }
    assert initialize_calls == [call] * joins


OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MPICH = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}


@pytest.mark.parametrize("variables", [OPEN_MPI, MPICH], ids=["open-mpi", "mpich"])
def test_mpi_needs_a_coordinator_alone(initialize_calls, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if variables is OPEN_MPI:  # in a SLURM job, whose numbers are then of Open MPI's daemons
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match=r"MPI started 4 processes, which do not.*--coordinator"):
        initialize_distributed()
    monkeypatch.setenv("CONDCONV_COORDINATOR", "host:1234")
    assert initialize_distributed()
    monkeypatch.delenv("CONDCONV_COORDINATOR")
    assert initialize_distributed("host:1234")
    assert initialize_calls[0] == initialize_calls[1]
    assert initialize_calls[0] == {
        "coordinator_address": "host:1234",
        "num_processes": 4,
        "process_id": 3,
        "local_device_ids": [1],
        "heartbeat_timeout_seconds": 100,
        "shutdown_timeout_seconds": 100,
        "initialization_timeout": 300,
    }


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, []),  # all of its machine's
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)"}, None),  # JAX takes that of SLURM_LOCALID
        ({"SLURM_STEP_TASKS_PER_NODE": "1,2"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "JAX_LOCAL_DEVICE_IDS": "0,1"}, None),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, []),
    ],
)
def test_a_process_alone_on_its_machine_has_all_gpus(
    initialize_calls, monkeypatch, environment, devices
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert initialize_distributed("host:1234", 2, 1)
    assert initialize_calls[0]["local_device_ids"] == devices


@pytest.mark.parametrize("address", ["localhost", ":12", "localhost:", "host:port", "host:70000"])
def test_addresses_without_a_port_are_refused(address):
    with pytest.raises(ValueError, match=f"coordinator_address is '{address}'; give HOST:PORT"):
        initialize_distributed(address, 2, 1)


def test_a_process_0_that_does_not_answer_is_named(coordinator):
    with pytest.raises(ValueError, match=f"process 0 did not answer at {coordinator} within 0 s"):
        initialize_distributed(coordinator, 2, 1, initialization_timeout_seconds=0)


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of process 0 is in use; give another"):
            initialize_distributed(f"localhost:{port}", 2, 0)


def test_launcher_that_jax_cannot_read(monkeypatch):
    def refuse(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
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
