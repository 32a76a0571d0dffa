"""Latency of one picture in every exported format, beside timm and static networks.

    python benchmarks/deployed.py --out=benchmarks/results/deployed

Every contender is a process of its own, on two cores with a thread each, and they run in turn,
several times over, so that a busy machine slows all alike; writes OUT.json and OUT.md. Needs the
environment of `make export-env`, and in it the extra `bench`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIZE, THREADS, CALLS, ROUNDS = 224, 2, 30, 3
CLASSES = 1000
MEAN, STD = (0.5,) * 3, (0.25,) * 3
NETWORKS: dict[str, tuple[str, dict[str, Any], str | None, str | None]] = {
    # name: model, its options, timm's CondConv network, timm's static one
    "EfficientNet-B0, 8 experts": (
        "efficientnet_b0",
        {"num_experts": 8},
        "tf_efficientnet_cc_b0_8e",
        "tf_efficientnet_b0",
    ),
    "MobileNetV1 0.25x, 32 experts": (
        "mobilenet_v1",
        {"width": 0.25, "num_experts": 32},
        None,
        None,
    ),
}
FORMATS = ("stablehlo", "onnx", "litert")
KINDS = ("condconv", "condconv in int8", "static")


def main() -> None:
    """Writes the programs, times all contenders in turn, writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="without suffix")
    parser.add_argument("--files", type=Path, default=Path("runs/deployed"), help="of programs")
    parser.add_argument("--only-write", action="store_true", help="the programs, timed another day")
    parser.add_argument("--time", nargs=2, metavar=("NETWORK", "CONTENDER"), help="one contender")
    parser.add_argument("--write", nargs=3, metavar=("NETWORK", "KIND", "FORMAT"))
    parsed = parser.parse_args()
    if parsed.write:
        print(json.dumps(_write(parsed.files, *parsed.write)))
        return
    if parsed.time:
        # Not all runtimes take a number of threads; those that do not have one for each core.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
        print(json.dumps(_time(parsed.files, *parsed.time)))
        return
    found = {network: _rows(parsed, network) for network in NETWORKS}
    if parsed.only_write:
        return
    machine = _machine()
    for network, rows in found.items():
        times: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(ROUNDS):
            for name in rows:
                times[name].append(_own_process(parsed, "--time", network, name)["ms"])
        for name, values in times.items():
            rows[name] |= {"ms": statistics.median(values), "all_ms": values}
            print(f"{network}: {name}: {rows[name]['ms']:.2f} ms", flush=True)
    parsed.out.with_suffix(".json").write_text(
        json.dumps({"machine": machine, "networks": found}, indent=1) + "\n"
    )
    parsed.out.with_suffix(".md").write_text(_tables(machine, found))


def _rows(parsed: argparse.Namespace, network: str) -> dict[str, dict[str, Any]]:
    """The contenders of a network, and what is known of their programs, which are written."""
    rows: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        rows[f"this package, {kind}"] = {}
        for form in FORMATS:
            rows[f"{form}, {kind}"] = _own_process(parsed, "--write", network, kind, form)
    _, _, conditional, static = NETWORKS[network]
    if conditional and static:
        rows |= {"timm, condconv": {}, "timm, static": {}}
    return rows


def _own_process(parsed: argparse.Namespace, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--out={parsed.out}", f"--files={parsed.files}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _network(name: str, kind: str) -> Any:
    """One of NETWORKS with drawn weights, folded as every exported one is."""
    import jax

    from condconv_jax import models
    from condconv_jax.cli.network import BoundNetwork
    from condconv_jax.tasks import Classification

    model_name, options, _, _ = NETWORKS[name]
    if kind == "static":
        options = {**options, "num_experts": 0}
    model = models.create(model_name, CLASSES, **options)
    task = Classification(model, SIZE, MEAN, STD)
    params, state = jax.jit(task.init)(jax.random.key(0))
    network = BoundNetwork("classification", task, params, state).folded()
    return network.compressed("int8") if kind == "condconv in int8" else network


def _write(files: Path, name: str, kind: str, form: str) -> dict[str, Any]:
    """What is known of a program; it is written unless it was before, which takes minutes."""
    known = _path(files, name, kind, form).with_suffix(".json")
    if known.exists():
        return json.loads(known.read_text())
    from condconv_jax.cli.exporting import make_program, make_reference
    from condconv_jax.interop.export import FORMATS as KNOWN
    from condconv_jax.interop.export import export_program

    network = _network(name, kind)
    program = make_program(network.with_method(KNOWN[form].method), {})
    path = _path(files, name, kind, form)
    written = export_program(program, make_reference(network), form, path)
    found = {"error": written.difference.error, "mb": path.stat().st_size / 1e6}
    path.with_suffix(".json").write_text(json.dumps(found))
    return found


def _path(files: Path, name: str, kind: str, form: str) -> Path:
    from condconv_jax.interop.export import FORMATS as KNOWN

    return files / f"{NETWORKS[name][0]}_{kind.replace(' ', '_')}_{form}{KNOWN[form].suffix}"


def _time(files: Path, name: str, contender: str) -> dict[str, float]:
    """The median time of one picture, in a fresh process."""
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    source, kind = contender.split(", ")
    if source == "timm":
        import peers

        torch = peers.torch
        torch.set_num_threads(THREADS)
        title = NETWORKS[name][2 if kind == "condconv" else 3]
        module = peers.import_timm().create_model(title).eval()
        images = torch.from_numpy(picture.astype(np.float32).transpose(0, 3, 1, 2).copy()) / 255

        def call() -> None:
            with torch.inference_mode():
                module(images)

    elif source == "this package":
        import jax

        network = _network(name, kind)
        weights = jax.device_put((network.params, network.model_state))
        compiled = jax.jit(network.task.predict)

        def call() -> None:
            jax.block_until_ready(compiled(*weights, picture))

    else:
        from condconv_jax.interop.export import read_exported

        exported = read_exported(_path(files, name, kind, source), threads=THREADS)

        def call() -> None:
            exported.run(picture)

    for _ in range(5):
        call()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"ms": 1e3 * statistics.median(times)}


def _machine() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    from condconv_jax.performance import machine

    found = dict(machine.describe())
    for package in ("onnxruntime", "ai-edge-litert", "jax2onnx", "torch", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _tables(machine: dict[str, Any], found: dict[str, Any]) -> str:
    lines = [
        "# One picture in every format",
        "",
        f"{SIZE} pixels, {THREADS} cores, a process each; medians of {ROUNDS} processes of the "
        f"median of {CALLS} calls. "
        + ", ".join(f"{key} {value}" for key, value in machine.items()),
    ]
    for network, rows in found.items():
        lines += ["", f"## {network}", ""]
        lines += ["| | ms | MB | relative error |", "|---|--:|--:|--:|"]
        for name, row in rows.items():
            size = f"{row['mb']:.1f}" if "mb" in row else ""
            error = f"{row['error']:.1e}" if "error" in row else ""
            lines.append(f"| {name} | {row['ms']:.2f} | {size} | {error} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
