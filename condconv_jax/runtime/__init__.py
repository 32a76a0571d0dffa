"""What training, tasks and interop need: mesh, checkpoints, metrics, writers, work directory."""

from condconv_jax.runtime.agreement import OtherProcessError, agreed
from condconv_jax.runtime.checkpoints import Checkpoints
from condconv_jax.runtime.compile_cache import enable_compile_cache
from condconv_jax.runtime.digests import DamagedCheckpointError
from condconv_jax.runtime.failed_saves import hush_failed_saves
from condconv_jax.runtime.json_lines import JsonLinesWriter, read_json_lines
from condconv_jax.runtime.mesh import (
    batch_sharding,
    make_mesh,
    put_batch,
    replicated,
)
from condconv_jax.runtime.metrics import Evaluation, Sum, Sums, add, compute, fetch, sum_of
from condconv_jax.runtime.preemption import StopRequests
from condconv_jax.runtime.processes import initialize_distributed, launched_by_mpi
from condconv_jax.runtime.profile import StepProfiler
from condconv_jax.runtime.progress import ProgressWriter
from condconv_jax.runtime.restoring import find_checkpoint, load_tree, restore
from condconv_jax.runtime.workdir import WorkDir, check_same_config, flatten_config
from condconv_jax.runtime.writers import TensorBoardWriter, Writer, Writers, make_writers

__all__ = [
    "Checkpoints",
    "DamagedCheckpointError",
    "Evaluation",
    "JsonLinesWriter",
    "OtherProcessError",
    "ProgressWriter",
    "StepProfiler",
    "StopRequests",
    "Sum",
    "Sums",
    "TensorBoardWriter",
    "WorkDir",
    "Writer",
    "Writers",
    "add",
    "agreed",
    "batch_sharding",
    "check_same_config",
    "compute",
    "enable_compile_cache",
    "fetch",
    "find_checkpoint",
    "flatten_config",
    "hush_failed_saves",
    "initialize_distributed",
    "launched_by_mpi",
    "load_tree",
    "make_mesh",
    "make_writers",
    "put_batch",
    "read_json_lines",
    "replicated",
    "restore",
    "sum_of",
]
