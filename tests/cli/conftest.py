import pytest
from detection_data import DETECTOR, write_detection_data

from condconv_jax.cli import main

SHORT = [
    "--config.data.train=train[:64]",
    "--config.data.eval=test[:20]",
    "--config.batch_size=16",
    "--config.eval_batch_size=16",
    "--config.epochs=1",
    "--config.schedule.warmup_epochs=0.25",
    "--config.log_every=1",
]
# A network and a data set that train in seconds.
TINY = [
    "--config=configs/fashion_mnist/mobilenet_v1.py:condconv",
    "--config.model.width=0.125",
    "--config.model.num_experts=2",
    "--config.model.begin_layer=14",
    "--config.model.early_strides=(2,2,2)",
    *SHORT,
]
# On the same data, a ResNet-8: a third of the layers to compile.
SHALLOW = [
    "--config=configs/cifar100/networks.py:resnet_cifar",
    "--config.model.blocks=1",
    "--config.model.width=0.5",
    "--config.model.num_experts=2",
    "--config.model.early_strides=(2,2,2)",
    "--config.data.name=fashion_mnist",
    "--config.data.path=",
    "--config.data.image_size=28",
    "--config.data.statistics=fashion_mnist",
    *SHORT,
]


@pytest.fixture
def tiny():
    """Arguments of a run of 4 steps."""
    return list(TINY)


@pytest.fixture
def shallow():
    """Arguments of a run of 4 steps, for what a process does whatever its network is."""
    return list(SHALLOW)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The work directory of a finished run of `TINY`."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *TINY, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="session")
def detector_arguments(tmp_path_factory):
    """Arguments of a detector's run of 4 steps; the last is that of its data."""
    root = write_detection_data(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 10})
    return [*DETECTOR, f"--config.data.path={root}"]


@pytest.fixture(scope="session")
def detector(detector_arguments, tmp_path_factory):
    """The work directory of a finished run of `DETECTOR`."""
    workdir = tmp_path_factory.mktemp("detector") / "run"
    assert main(["train", *detector_arguments, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail and returns its one line on stderr."""

    def run(*arguments: str, status: int = 1) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == status
        # Progress goes to stderr too.
        printed = capsys.readouterr().err.splitlines()
        lines = [line for line in printed if line.startswith("condconv")]
        assert len(lines) == 1, printed
        assert lines[0] == printed[-1]
        return lines[0]

    return run
