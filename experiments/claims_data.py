"""CIFAR-100 and Tiny ImageNet as they are published, as claims.py reads them.

    python experiments/claims_data.py --cifar100=cifar-100-binary
    python experiments/claims_data.py --tiny-imagenet=tiny-imagenet-200

writes `train.npz` and `test.npz` into data/cifar100, `train.npz` and `val.npz` into
data/tiny-imagenet-50, below --out. CIFAR-100 is that of the "binary version" on
https://www.cs.toronto.edu/~kriz/cifar.html, Tiny ImageNet that of
http://cs231n.stanford.edu/tiny-imagenet-200.zip, of which every fourth class is taken in the order
of the ids, with the training pictures numbered 0 to 319 and all of its validation pictures.

Training pictures come in an order, drawn from --seed, in which each run of as many as there are
classes has one of each, so that `train[:10%]` is balanced.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PIXELS = 32
RECORD = 2 + 3 * PIXELS**2  # bytes: coarse and fine label, red, green and blue plane
EVERY = 4  # of Tiny ImageNet's classes
TRAINING = 320  # pictures of each of them


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts what is given; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar100", type=Path, metavar="DIR", help="holds train.bin, test.bin")
    parser.add_argument("--tiny-imagenet", type=Path, metavar="DIR", help="holds wnids.txt, train/")
    parser.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="(data)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parsed = parser.parse_args(arguments)
    if not (parsed.cifar100 or parsed.tiny_imagenet):
        parser.error("nothing to convert; pass --cifar100=DIR or --tiny-imagenet=DIR")
    try:
        for folder, convert, name in (
            (parsed.cifar100, cifar100, "cifar100"),
            (parsed.tiny_imagenet, tiny_imagenet, "tiny-imagenet-50"),
        ):
            if folder is None:
                continue
            splits = convert(folder, np.random.default_rng(parsed.seed))
            (parsed.out / name).mkdir(parents=True, exist_ok=True)
            for split, arrays in splits.items():
                file = parsed.out / name / f"{split}.npz"
                # To mypy a key might be the flag `allow_pickle`, which NumPy 2.0 does not know yet.
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
                print(f"written: {file}")
    except (OSError, ValueError) as error:
        print(f"claims_data.py: {error}", file=sys.stderr)
        return 1
    return 0


def cifar100(folder: Path, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays of each split: x, y, names, coarse and coarse_names.

    Args:
      folder: of the binary version.
      rng: draws the order.

    Raises:
      FileNotFoundError: if a file is not there.
      ValueError: if one is no whole number of pictures.
    """
    names = {
        key: np.array((folder / f"{kind}_label_names.txt").read_text().split())
        for key, kind in (("names", "fine"), ("coarse_names", "coarse"))
    }
    splits = {}
    for split in ("train", "test"):
        file = folder / f"{split}.bin"
        data = np.fromfile(file, np.uint8)
        if len(data) % RECORD or not len(data):
            raise ValueError(f"{file} has {len(data)} bytes; pictures have {RECORD}")
        records = data.reshape(-1, RECORD)
        records = records[balanced_order(records[:, 1], rng)]
        planes = records[:, 2:].reshape(-1, 3, PIXELS, PIXELS)
        splits[split] = {
            "x": np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
            "y": records[:, 1],
            "coarse": records[:, 0],
            **names,
        }
    return splits


def tiny_imagenet(folder: Path, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays of each split: the files' bytes as jpeg, with offsets, labels and names.

    Args:
      folder: with the training pictures of all 200 classes.
      rng: draws the order.

    Raises:
      FileNotFoundError: if a file is not there.
    """
    ids = sorted((folder / "wnids.txt").read_text().split())[::EVERY]
    words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
    names = np.array([words[wnid].split(",")[0].strip() for wnid in ids])
    rows = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    files: dict[str, list[tuple[Path, int]]] = {
        "train": [
            (folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", label)
            for label, wnid in enumerate(ids)
            for number in range(TRAINING)
        ],
        "val": [
            (folder / "val" / "images" / name, ids.index(wnid))
            for name, wnid in (row.split("\t")[:2] for row in rows)
            if wnid in ids
        ],
    }
    splits = {}
    for split, found in files.items():
        labels = np.array([label for _, label in found], np.uint8)
        order = balanced_order(labels, rng)
        pictures = [found[i][0].read_bytes() for i in order]
        splits[split] = {
            "jpeg": np.frombuffer(b"".join(pictures), np.uint8),
            "offsets": np.cumsum([0, *map(len, pictures)]),
            "labels": labels[order],
            "names": names,
        }
    return splits


def balanced_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns an order of pictures in which classes take turns, each round in another order.

    Args:
      labels: of the pictures (n,).
      rng: draws it.
    """
    drawn = rng.permutation(len(labels))
    turn = np.empty(len(labels), int)  # how many of its class come before
    for label in np.unique(labels):
        own = drawn[labels[drawn] == label]
        turn[own] = np.arange(len(own))
    return drawn[np.argsort(turn[drawn], kind="stable")]


if __name__ == "__main__":
    sys.exit(main())
