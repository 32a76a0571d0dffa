"""`condconv export`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

HELP = """A trained network as one file for another runtime: weights and normalisation inside, a
batch of any size, class names in the metadata. The file is run after writing and compared with the
network; it is refused with the layer's name where they differ. Batch norms are folded."""
EXAMPLE = """condconv export --workdir=runs/experts16 --format=stablehlo
  condconv export --workdir=runs/experts16 --format=onnx --out=model.onnx
  condconv predict --model=model.onnx pictures/"""

FORMATS = ("stablehlo", "onnx", "litert")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="work directory, or a checkpoint in it"
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of the file")
    parser.add_argument(
        "--out", metavar="FILE", help="default: exported/NETWORK.SUFFIX in the work directory"
    )
    parser.add_argument(
        "--experts",
        choices=["float32", "bfloat16", "int8"],
        default="float32",
        help="round the experts to fewer bytes",
    )


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Exports, checks, and prints what was written."""
    from condconv_jax.interop.export import export_program, find_format, require

    form = find_format(arguments.format)
    require(arguments.format)
    if arguments.out and Path(arguments.out).suffix != form.suffix:
        raise ValueError(f"--out={arguments.out}: a {arguments.format} file ends in {form.suffix}")

    from condconv_jax.cli.exporting import make_metadata, make_program, make_reference
    from condconv_jax.cli.network import network_of
    from condconv_jax.cli.trained import load_predictor

    predictor = load_predictor(arguments.workdir, overrides, best=arguments.best)
    trained = network_of(predictor.config, predictor.task, predictor.state)
    network = trained.in_float32()
    folded = network.folded().compressed(arguments.experts)
    # Rounded experts are not those of the network; what was folded before they were must agree.
    reference = network if arguments.experts == "float32" else folded
    method = network.task.model.method
    exported = folded.with_method(form.method) if method == "auto" else folded
    metadata = make_metadata(predictor, network, arguments.experts)
    out = arguments.out or (
        predictor.workdir.path / "exported" / f"{metadata['network']}{form.suffix}"
    )
    written = export_program(
        make_program(exported, metadata),
        make_reference(reference, layers_of=folded),
        arguments.format,
        out,
    )
    size = metadata["input"]["shape"][1]
    print(
        f"{written.path}: {metadata['network']}, {metadata['conditional']}, step "
        f"{metadata['step']}, {len(metadata['class_names'])} classes, "
        f"{written.path.stat().st_size / 1e6:.1f} MB; takes uint8 (b, {size}, {size}, 3)"
    )
    print(f"run in {written.runtime} at batch 1, 2 and 7: {written.difference}")
    if written.tolerance > 1e-5:
        print(
            f"note: more than 1e-5 was allowed, {written.tolerance:.1e}: the network's own float32 "
            "is half as far from float64"
        )
    if (dtype := predictor.config["model"]["dtype"]) != "float32":
        print(f"note: the program computes in float32, the network was made to in {dtype}")
    if trained.is_sparse:
        print("note: exported programs mix all experts: sparse routing saves no time in them")
