"""Saves step 1, then step 2, and is killed by SIGKILL at a moment of the second save.

Usage: python save_and_die.py DIRECTORY MOMENT. Python's audit events tell the moment, so it is
the same in every run.
"""

import os
import signal
import sys

import jax.numpy as jnp

from condconv_jax.runtime import Checkpoints

directory, moment = sys.argv[1:]
NEW = os.path.join(directory, "2")
TEMPORARY = NEW + ".orbax-checkpoint-tmp"


def is_the_moment(event, arguments):
    path = (
        os.fspath(arguments[0]) if arguments and isinstance(arguments[0], str | os.PathLike) else ""
    )
    match moment:
        case "folder":  # before there is anything
            return event == "os.mkdir" and path.startswith(TEMPORARY)
        case "arrays":  # the folder is there, the arrays are being written
            return event == "os.mkdir" and path.startswith(os.path.join(TEMPORARY, "state"))
        case "metadata":  # the arrays may be there, what describes them is not
            return event == "open" and path.startswith(TEMPORARY) and "_METADATA" in path
        case "rename":  # all is there, under the temporary name
            return event == "os.rename" and path == TEMPORARY
        case "delete":  # step 2 is a checkpoint, step 1 about to be deleted
            return event in ("os.remove", "shutil.rmtree") and os.path.exists(NEW)
        case "half deleted":  # files of step 1 are gone
            return event == "os.rmdir" and os.path.exists(NEW)
    raise ValueError(moment)


def die_at_the_moment(event, arguments):
    if armed and is_the_moment(event, arguments):
        os.kill(os.getpid(), signal.SIGKILL)


armed = False
sys.addaudithook(die_at_the_moment)
with Checkpoints(directory, keep_last=1) as checkpoints:
    checkpoints.save(1, {"w": jnp.full((64, 64), 1.0)})
    checkpoints.wait()
    armed = True
    checkpoints.save(2, {"w": jnp.full((64, 64), 2.0)})
