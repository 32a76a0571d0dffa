"""`condconv predict`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from condconv_jax.cli.trained import Predictor

HELP = """What a trained network sees in pictures: the classes of each, or, of a detector, the
objects, with a copy of the picture that has their boxes drawn on it."""
EXAMPLE = """condconv predict --workdir=runs/bccd_condconv --out=runs/drawn pictures/ more.jpg
  condconv predict --workdir=runs/experts16 --top=3 shirt.png"""

# Enough to keep a device busy, few enough for pictures to come one after another.
BATCH_SIZE = 8
THRESHOLD, TOP = 0.5, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, or folders of them")
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="work directory, or a checkpoint in it"
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    parser.add_argument(
        "--out", metavar="DIR", help="of a detector: where pictures with boxes go, as PNG"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help=f"of a detector: lower scores are left out (default {THRESHOLD})",
    )
    parser.add_argument(
        "--top", type=int, metavar="K", help=f"of a classifier: classes (default {TOP})"
    )


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Predicts picture by picture and prints a line for each."""
    from condconv_jax.cli.trained import load_predictor

    _check(arguments)
    files = list(_files(arguments.pictures, arguments.out))
    predictor = load_predictor(arguments.workdir, overrides, best=arguments.best)
    shower = _SHOWERS[predictor.config["task"]]
    for option in shower.not_for:
        if getattr(arguments, option) is not None:
            raise ValueError(f"--{option}: a {shower.noun} has no use for it; leave it out")
    show = shower(predictor, arguments)
    failed = 0
    for batch in _batches(files, predictor.config):
        failed += sum(image is None for _, image, _ in batch)
        show([(file, image, ready) for file, image, ready in batch if image is not None])
    if failed == len(files):
        raise ValueError(f"none of the {failed} pictures could be read")
    if failed:
        print(f"{failed} of {len(files)} pictures could not be read", file=sys.stderr)
    if arguments.out:
        print(f"drawn: {arguments.out}")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.top is not None and arguments.top < 1:
        raise ValueError(f"--top is {arguments.top}; pass at least 1")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ValueError(f"--threshold is {arguments.threshold}; pass a score, 0 to 1")


def _files(names: Sequence[str], out: str | None) -> Iterator[Path]:
    """The files that were named, and the pictures in folders that were.

    What was drawn before is no picture to look at, and no picture may be drawn over.
    """
    from condconv_jax.data.class_folders import EXTENSIONS, is_picture

    drawn = Path(out).resolve() if out else None
    for name in names:
        path = Path(name)
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"no picture {name!r}; pass files or folders")
            if drawn is not None and path.resolve().is_relative_to(drawn):
                raise ValueError(f"--out={out} holds {name!r} itself; pass another folder")
            yield path
            continue
        found = sorted(
            item
            for item in path.rglob("*")
            if is_picture(item.name)
            and not (drawn is not None and item.resolve().is_relative_to(drawn))
        )
        if drawn == path.resolve():
            raise ValueError(f"--out={out} is the folder of the pictures; pass another one")
        if not found:
            raise FileNotFoundError(f"no picture in {name!r}; wants {', '.join(EXTENSIONS)}")
        yield from found


Read = tuple[Path, "np.ndarray | None", "np.ndarray | None"]


def _batches(files: Sequence[Path], config: dict[str, Any]) -> Iterator[list[Read]]:
    """Pictures as they are and as the network takes them; what cannot be read is named."""
    from condconv_jax import config as configs
    from condconv_jax.data.decoding import decode_image

    for first in range(0, len(files), BATCH_SIZE):
        batch: list[Read] = []
        for file in files[first : first + BATCH_SIZE]:
            try:
                image = decode_image(file.read_bytes(), str(file))
            except (ValueError, OSError) as error:
                print(f"{file}: {error}", file=sys.stderr)
                batch.append((file, None, None))
            else:
                batch.append((file, image, configs.read_unlabelled(config, image)))
        yield batch


class _Shower:
    """Runs the network on a batch, of one size so that it is compiled once."""

    def __init__(self, predictor: "Predictor", arguments: argparse.Namespace, method: Any):
        import jax

        self.class_names = predictor.class_names
        self.arguments = arguments
        self._weights = jax.device_put(predictor.state.to_evaluate())
        self._run = jax.jit(method)

    def results(self, images: Sequence["np.ndarray"]) -> Any:
        import jax
        import numpy as np

        filling = [np.zeros_like(images[0])] * (BATCH_SIZE - len(images))
        return jax.device_get(self._run(*self._weights, np.stack([*images, *filling])))


class _Classifier(_Shower):
    """Prints the likeliest classes of pictures."""

    noun, not_for = "classifier", ("out", "threshold")

    def __init__(self, predictor: "Predictor", arguments: argparse.Namespace):
        super().__init__(predictor, arguments, predictor.task.predict)

    def __call__(self, batch: Sequence[Any]) -> None:
        import numpy as np

        if not batch:
            return
        logits = self.results([ready for _, _, ready in batch])
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = exps / exps.sum(axis=1, keepdims=True)
        for (file, _, _), share in zip(batch, shares, strict=False):
            best = np.argsort(-share, kind="stable")[: self.arguments.top or TOP]
            words = ", ".join(f"{self.class_names[label]} {share[label]:.3f}" for label in best)
            print(f"{file}: {words}", flush=True)


class _Detector(_Shower):
    """Prints what is found in pictures, and draws it."""

    noun, not_for = "detector", ("top",)

    def __init__(self, predictor: "Predictor", arguments: argparse.Namespace):
        super().__init__(predictor, arguments, predictor.task.detect)
        self._written: set[str] = set()
        if arguments.out:
            Path(arguments.out).mkdir(parents=True, exist_ok=True)

    def __call__(self, batch: Sequence[Any]) -> None:
        if not batch:
            return
        found = self.results([ready for _, _, ready in batch])
        given = self.arguments.threshold
        least = THRESHOLD if given is None else given
        for index, (file, image, _) in enumerate(batch):
            keep = (found.labels[index] >= 0) & (found.scores[index] >= least)
            boxes, scores, labels = (part[index][keep] for part in found)
            print(f"{file}: {self._count(labels)}", flush=True)
            if self.arguments.out:
                self._draw(file, image, boxes, scores, labels)

    def _count(self, labels: "np.ndarray") -> str:
        counts = [(int((labels == k).sum()), name) for k, name in enumerate(self.class_names)]
        return ", ".join(f"{count} {name}" for count, name in counts if count) or "nothing"

    def _draw(self, file: Path, image: Any, boxes: Any, scores: Any, labels: Any) -> None:
        from PIL import Image

        from condconv_jax.analysis import draw_boxes

        drawn = draw_boxes(image, boxes, labels, scores, class_names=self.class_names)
        # Files of one name from several folders must not overwrite each other.
        name, number = file.stem, 1
        while name in self._written:
            number += 1
            name = f"{file.stem}_{number}"
        self._written.add(name)
        Image.fromarray(drawn).save(Path(self.arguments.out) / f"{name}.png")


_SHOWERS: dict[str, Any] = {"classification": _Classifier, "detection": _Detector}
