"""What interruptions cost: the figures of docs/reliability.md.

    python benchmarks/reliability.py kills --kills=20 --seed=0
    python benchmarks/reliability.py damage --flips=8
    python benchmarks/reliability.py resume

Each prints a table and exits with 1 if anything was lost. They train the network of `TINY`, `kills`
one whose steps, saves and evaluations last long enough to be hit.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from condconv_jax import runtime
from condconv_jax.runtime import digests

TINY = [
    "--config=configs/fashion_mnist/mobilenet_v1.py:condconv",
    "--config.model.width=0.1",
    "--config.model.num_experts=2",
    "--config.model.begin_layer=14",
    "--config.model.early_strides=(2,2,2)",
    "--config.data.train=train[:64]",
    "--config.data.eval=test[:1000]",
    "--config.batch_size=16",
    "--config.eval_batch_size=16",
    "--config.schedule.warmup_epochs=0.25",
    "--config.checkpoint_every_epochs=2",
    "--config.eval_every_epochs=2",
    "--config.log_every=1",
]
# Of about half a second a step, one an evaluation and one a save, on two cores.
LONGER = [
    "--config=configs/fashion_mnist/mobilenet_v1.py:condconv",
    "--config.data.train=train[:1024]",
    "--config.batch_size=128",
    "--config.schedule.learning_rate=0.02",
    "--config.log_every=1",
]
STEPS_PER_EPOCH = 8  # of both, as is the number of steps between two saves
STEP, SAVE, EVALUATION = MOMENTS = ("step", "save", "evaluation")
# What depends on the machine and not on the result.
CLOCK = ("seconds", "images_per_second", "input_wait")


def start(
    workdir: Path, epochs: int, config: Sequence[str] = TINY, **environment: str
) -> subprocess.Popen:
    """Starts training in a process of its own, on one device."""
    command = [sys.executable, "-m", "condconv_jax", "train", *config]
    command += [f"--config.epochs={epochs}", f"--workdir={workdir}"]
    return subprocess.Popen(
        command,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Waits for the end, which must be a good one."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"train ended with {process.returncode}:\n{output}")
    return output


def rows(workdir: Path) -> list[dict]:
    """The rows of the metrics file without times, [] if it is not there yet."""
    with contextlib.suppress(FileNotFoundError):
        found = runtime.read_json_lines(workdir / "metrics.jsonl")
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in found]
    return []


def last_row(workdir: Path) -> tuple[int, dict]:
    """The number of rows and the last of them, quicker than `rows`."""
    with contextlib.suppress(FileNotFoundError):
        lines = (workdir / "metrics.jsonl").read_bytes().split(b"\n")
        if len(lines) > 1:
            return len(lines) - 1, json.loads(lines[-2])
    return 0, {}


def moment(workdir: Path, last: dict) -> tuple[str, str]:
    """What a run is doing, or was when it was killed, from what is on disk: of `MOMENTS`, and more.

    A save goes on in the background of the next steps; it counts as a save.
    """
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    steps = sorted(int(name) for name in names if name.isdecimal())
    newest = steps[-1] if steps else 0
    if any(name.endswith(".orbax-checkpoint-tmp") for name in names):
        return SAVE, "files half written"
    if steps and not digests.written(folder / str(newest)):
        return SAVE, "no digests yet"
    if any(not digests.written(folder / str(step)) for step in steps):
        return SAVE, "an older one half deleted"
    if last["kind"] == "eval":
        return (SAVE, "nothing written yet") if newest < last["step"] else (STEP, "")
    return (STEP, "") if last["step"] % STEPS_PER_EPOCH else (EVALUATION, "")


def moments(process: subprocess.Popen, workdir: Path, after: int = 0) -> Iterator[str]:
    """Yields each moment of a run as it begins, once there are more rows than `after`."""
    before = None
    while process.poll() is None:
        count, last = last_row(workdir)
        if count > after:
            what, _ = moment(workdir, last)
            # Each step is a moment of its own.
            now = (what, count if what == STEP else 0)
            if now != before:
                yield what
            before = now
        time.sleep(0.002)


def typical_seconds(process: subprocess.Popen, workdir: Path) -> dict[str, float]:
    """The median duration of each kind of moment, of a run that is watched to its end."""
    lasted = collections.defaultdict(list)
    what, began = None, 0.0
    for following in moments(process, workdir):
        if what is not None:
            lasted[what].append(time.perf_counter() - began)
        what, began = following, time.perf_counter()
    return {name: statistics.median(lasted[name]) for name in MOMENTS}


def kill_in(
    process: subprocess.Popen, workdir: Path, aim: str, seconds: float, draw: random.Random
) -> None:
    """Kills a run that has just started, at a random time of a moment of the kind given."""
    # Past the last kill, or a run that is killed in every step would never get on.
    found = moments(process, workdir, after=last_row(workdir)[0])
    passing = draw.randrange(STEPS_PER_EPOCH - 1) if aim == STEP else 0
    for what in found:
        if what == aim:
            if not passing:
                time.sleep(draw.uniform(0, seconds))
                break
            passing -= 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError("the run was over before it could be killed; pass more --epochs")


def kills(root: Path, count: int, seed: int, epochs: int) -> bool:
    """Kills a run again and again at random moments; whether it ends as an undisturbed one."""
    whole, parts, draw = root / "whole", root / "parts", random.Random(seed)
    process = start(whole, epochs, LONGER)
    seconds = typical_seconds(process, whole)
    finish(process)
    print("median seconds:", ", ".join(f"{name} {seconds[name]:.2f}" for name in MOMENTS))
    aims = [MOMENTS[number % len(MOMENTS)] for number in range(count)]
    draw.shuffle(aims)
    found: collections.Counter[str] = collections.Counter()
    print("| kill | aimed at | found on disk | after step | resumed from |\n|---|---|---|---|---|")
    for number, aim in enumerate(aims, start=1):
        kill_in(start(parts, epochs, LONGER), parts, aim, seconds[aim], draw)
        _, last = last_row(parts)
        what, more = moment(parts, last)
        found[what] += 1
        # As a restart sees it: the newest that is whole.
        try:
            resumes = str(runtime.find_checkpoint(parts)[1])
        except FileNotFoundError:
            resumes = "the start"
        where = f"{what}: {more}" if more else what
        print(f"| {number} | {aim} | {where} | {last['step']} | {resumes} |", flush=True)
    finish(start(parts, epochs, LONGER))
    equal = jax.tree.map(np.array_equal, runtime.load_tree(whole), runtime.load_tree(parts))
    weights = all(jax.tree.leaves(equal))
    same_rows = rows(whole) == rows(parts)
    print("\nfound:", ", ".join(f"{name} {found[name]}" for name in MOMENTS))
    print(f"weights bitwise equal: {weights}; {len(rows(parts))} rows equal: {same_rows}")
    return weights and same_rows


def damage(root: Path, flips: int, seed: int) -> bool:
    """Damages every file of a checkpoint; what Orbax alone and the digests notice of it."""
    finish(start(root / "run", 1))
    folder, step = runtime.find_checkpoint(root / "run")
    saved, draw = runtime.load_tree(folder), random.Random(seed)
    source, broken = folder / str(step), root / "broken" / str(step)
    names = [item.relative_to(source) for item in sorted(source.rglob("*")) if item.is_file()]
    noticed = True
    print("| file | damage | Orbax alone | with digests |\n|---|---|---|---|")
    for name in names:
        for kind, times in (("cut in half", 1), ("one bit", flips)):
            alone: collections.Counter[str] = collections.Counter()
            found = 0
            for _ in range(times):
                shutil.rmtree(broken, ignore_errors=True)
                shutil.copytree(source, broken)
                content = bytearray((broken / name).read_bytes())
                bit = draw.randrange(8 * len(content))
                content[bit // 8] ^= 1 << bit % 8
                (broken / name).write_bytes(
                    content if kind == "one bit" else content[: len(content) // 2]
                )
                try:
                    digests.check(broken)
                except digests.DamagedCheckpointError:
                    found += 1
                (broken / digests.NAME).unlink()
                alone[_load(broken, saved)] += 1
            outcome = ", ".join(f"{what} {n}" for what, n in sorted(alone.items()))
            print(f"| `{name}` | {kind}, {times}x | {outcome} | noticed {found} |", flush=True)
            noticed &= found == times
    return noticed


def _load(folder: Path, saved: dict) -> str:
    try:
        loaded = runtime.load_tree(folder)
    except Exception:  # whatever it is, it was noticed
        return "error"
    same = jax.tree.structure(saved) == jax.tree.structure(loaded) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, saved, loaded))
    )
    return "loads as saved" if same else "**wrong weights**"


def resume(root: Path) -> bool:
    """Times starts of a run until its first row, with and without compiled programs."""
    print("| start | seconds to the first row |\n|---|---|")
    finish(start(root / "run", 4, XDG_CACHE_HOME=str(root / "cache")))
    for title, switch in (("compiling everything", "0"), ("programs from the cache", "1")):
        workdir = root / f"again{switch}"
        shutil.copytree(root / "run", workdir)
        # The last checkpoint but one, so that there is a step to do.
        steps = sorted(int(item.name) for item in (workdir / "checkpoints").iterdir())
        shutil.rmtree(workdir / "checkpoints" / str(steps[-1]))
        process = start(
            workdir, 4, XDG_CACHE_HOME=str(root / "cache"), CONDCONV_COMPILE_CACHE=switch
        )
        began, text = time.perf_counter(), (root / "run" / "metrics.jsonl").read_text()
        metrics = workdir / "metrics.jsonl"
        while process.poll() is None and metrics.read_text() == text:
            time.sleep(0.01)
        while process.poll() is None and rows(workdir)[-1]["step"] <= steps[-2]:
            time.sleep(0.01)
        print(f"| going on, {title} | {time.perf_counter() - began:.1f} |")
        finish(process)
    return True


def main() -> int:
    """Runs one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kills", "damage", "resume"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=25, help="of kills: of 8 steps each")
    parser.add_argument("--flips", type=int, default=8, help="of damage: bits, one at a time")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if arguments.what == "kills":
            good = kills(root, arguments.kills, arguments.seed, arguments.epochs)
        elif arguments.what == "damage":
            good = damage(root, arguments.flips, arguments.seed)
        else:
            good = resume(root)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
