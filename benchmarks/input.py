"""Training input: images/s of one core, from JPEG bytes to batches.

    python benchmarks/input.py --pictures=ORIGINALS.zip --recode=500x375 --out=OUT.json

Pictures (a folder of class folders, or a zip of one) are held in memory, so that storage is not
measured, and go through `train_batches` with one thread on one core: decoding, a random resized
crop, a mirror image in half of the cases, batching. Counted are seconds of the core, which other
work on the machine changes less than those of the clock, which are given beside them. The stages
are timed by themselves besides; what is left of the whole is the pipeline's own. With --recode
pictures are first cropped and resized to one size and saved again as JPEG. Needs the extra
`fast-data` for all rows.
"""

import argparse
import io
import itertools
import json
import os
import time
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from condconv_jax import data
from condconv_jax.data.decoding import decode_image
from condconv_jax.performance.machine import describe

DECODERS = ("simplejpeg", "pillow")


# As many samples as ImageNet's: grain's shuffle takes 3 ms for each of 6, and 3 us
# for each of these.
SAMPLES = 1_281_167


@dataclass(frozen=True, eq=False, repr=False)
class EncodedPictures(data.NamedSource):
    """JPEG files in memory, again and again, decoded by the decoder asked for."""

    files: list[bytes]
    decoder: str
    name: str = "pictures"
    class_names: tuple[str, ...] = ("any",)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> data.Sample:
        fast = self.decoder == "simplejpeg"
        file = self.files[index % len(self.files)]
        return {"image": decode_image(file, str(index), fast=fast), "label": 0}


def read_files(path: str) -> list[bytes]:
    """Returns the picture files of a folder of class folders, or of a zip archive of one."""
    source = data.open_folder("train", path=path)
    if isinstance(source, data.FolderSource):
        return [(source.root / file).read_bytes() for file in source.files]
    with zipfile.ZipFile(source.archive) as archive:
        prefix = f"{source.folder}/" if source.folder else ""
        return [archive.read(prefix + file) for file in source.files]


def recoded(files: list[bytes], size: tuple[int, int], quality: int) -> list[bytes]:
    """Returns those pictures that are large enough, cropped, shrunk and saved at one size."""
    result = []
    for file in files:
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        if picture.width < size[0] or picture.height < size[1]:
            continue  # enlarged ones would be smoother than photographs are
        saved = io.BytesIO()
        fitted = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        fitted.save(saved, "JPEG", quality=quality)
        result.append(saved.getvalue())
    return result


def images_per_second(
    source: EncodedPictures, transform: data.Transform, batch_size: int, images: int
) -> tuple[float, float]:
    """Returns the rate of `train_batches` with one thread, by the core's seconds and the clock's.

    What was read ahead before counts as read in the time measured, as does what is read ahead at
    its end, which is as much.
    """
    batches = data.train_batches(source, transform, batch_size=batch_size, seed=0, threads=1)
    for _ in range(4):
        next(batches)
    count = -(-images // batch_size)
    start = time.process_time(), time.perf_counter()
    for _ in range(count):
        next(batches)
    end = time.process_time(), time.perf_counter()
    batches.close()
    busy, passed = (after - before for before, after in zip(start, end, strict=True))
    return count * batch_size / busy, count * batch_size / passed


def stage_microseconds(
    source: EncodedPictures, interpolation: str, size: int, batch_size: int, images: int
) -> dict[str, float]:
    """Returns what each stage takes for one picture, in this thread."""
    rng = np.random.default_rng(0)
    crop = data.RandomResizedCrop(size, interpolation=interpolation)
    flip = data.RandomFlip()
    seconds = dict.fromkeys(("decode", "crop and resize", "flip", "batch"), 0.0)
    rows: list[np.ndarray] = []
    for index in range(images):
        times = [time.thread_time()]
        image = source[index]["image"]
        times.append(time.thread_time())
        image = crop(image, rng)
        times.append(time.thread_time())
        rows.append(flip(image, rng))
        times.append(time.thread_time())
        if len(rows) == batch_size:
            np.stack(rows)
            rows = []
        times.append(time.thread_time())
        for stage, before, after in zip(seconds, times, times[1:], strict=False):
            seconds[stage] += after - before
    return {stage: 1e6 * total / images for stage, total in seconds.items()}


def measure(files: list[bytes], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns one row for each decoder and interpolation, the best of the rounds, and prints it."""
    rows = []
    for decoder, interpolation in itertools.product(
        arguments.decoder or DECODERS, arguments.interpolation or data.INTERPOLATIONS
    ):
        source = EncodedPictures(files, decoder)
        transform = data.make_transforms(
            arguments.size, train=True, crop="resized", interpolation=interpolation
        )
        rates, stage_rounds = [], []
        for _ in range(arguments.rounds):
            rates.append(images_per_second(source, transform, arguments.batch, arguments.images))
            stage_rounds.append(
                stage_microseconds(
                    source, interpolation, arguments.size, arguments.batch, arguments.images
                )
            )
        stages = {stage: min(times[stage] for times in stage_rounds) for stage in stage_rounds[0]}
        per_core, by_clock = (max(column) for column in zip(*rates, strict=True))
        stages["pipeline"] = 1e6 / per_core - sum(stages.values())
        row = {
            "decoder": decoder,
            "interpolation": interpolation,
            "images_per_core_second": round(per_core, 1),
            "images_per_second": round(by_clock, 1),
            "rounds": [round(rate, 1) for rate, _ in rates],
            "microseconds": {stage: round(value, 1) for stage, value in stages.items()},
        }
        rows.append(row)
        listed = ", ".join(f"{stage} {value:.0f}" for stage, value in stages.items())
        rate = f"{per_core:.0f} images/s of a core, {by_clock:.0f} by the clock"
        print(f"{decoder} {interpolation}: {rate} ({listed} us)", flush=True)
    return rows


def main() -> None:
    """Measures the rows asked for and writes them all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", required=True, help="folder of class folders, or a .zip")
    parser.add_argument("--recode", help="WIDTHxHEIGHT to make all pictures, by default as is")
    parser.add_argument("--quality", type=int, default=95, help="of --recode, Pillow's scale")
    parser.add_argument("--decoder", action="append", choices=DECODERS)
    parser.add_argument("--interpolation", action="append", choices=data.INTERPOLATIONS)
    parser.add_argument("--size", type=int, default=224, help="of the crops, pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=2048, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", type=int, help="core to run on, by default the first allowed")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    machine = {
        **describe(),
        **{name: version(name) for name in ("pillow", "grain")},
        **{name: optional_version(name) for name in ("simplejpeg", "opencv-python-headless")},
    }
    if "simplejpeg" in (arguments.decoder or DECODERS) and not machine["simplejpeg"]:
        parser.error("simplejpeg is not installed; install the extra fast-data, or pass --decoder")
    cpu = min(os.sched_getaffinity(0)) if arguments.cpu is None else arguments.cpu
    os.sched_setaffinity(0, {cpu})  # before the pipeline's thread starts, which inherits it

    files = read_files(arguments.pictures)
    if arguments.recode:
        width, height = map(int, arguments.recode.split("x"))
        files = recoded(files, (width, height), arguments.quality)
        if not files:
            parser.error(f"no picture is as large as {arguments.recode}")
    mean_bytes = sum(map(len, files)) / len(files)
    print(f"{len(files)} pictures of {mean_bytes / 1e3:.0f} kB on average, one core")
    result = {
        "machine": machine,
        "pictures": {
            "count": len(files),
            "mean_bytes": round(mean_bytes),
            "recoded": arguments.recode,
            "quality": arguments.quality if arguments.recode else None,
        },
        "size": arguments.size,
        "batch": arguments.batch,
        "rows": measure(files, arguments),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def optional_version(name: str) -> str | None:
    """Returns the version of a distribution, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
