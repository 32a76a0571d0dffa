"""Digests of a checkpoint's files, which tell whether it still is what was saved.

Orbax notices a file that is cut short, but not all changes within one: a single bit flipped in the
arrays' data is loaded as a wrong weight (docs/reliability.md). So each checkpoint has a file of
digests in the format of the program `sha256sum`, which can check it too::

    cd checkpoints/12 && sha256sum --check SHA256SUMS
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from condconv_jax.runtime import atomic

NAME = "SHA256SUMS"


class DamagedCheckpointError(ValueError):
    """A checkpoint's files are not those that were saved."""


def write(folder: Path) -> None:
    """Writes the digests of all files in a checkpoint's folder, atomically.

    Args:
      folder: of one step, whole.
    """
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _files(folder)]
    atomic.write_text(folder / NAME, "".join(lines))


def written(folder: Path) -> bool:
    """Whether a checkpoint has digests: not if its run was killed between the two."""
    return (folder / NAME).is_file()


def check(folder: Path) -> None:
    """Checks every file of a checkpoint against its digest, if it has digests.

    Args:
      folder: of one step.

    Raises:
      DamagedCheckpointError: naming the first file that is not what was saved.
    """
    if not written(folder):
        return
    saved = {}
    for line in (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        saved[name] = digest
    found = _files(folder)
    for name in sorted({*saved, *found}):
        if name not in found:
            what = "is missing"
        elif name not in saved:
            what = f"is not in {NAME}"
        elif _digest(folder / name) != saved[name]:
            what = "is not what was saved"
        else:
            continue
        raise DamagedCheckpointError(
            f"checkpoint {folder} is damaged: {name or 'a name'} {what}; use another checkpoint, "
            "or a copy of this one"
        )


def _files(folder: Path) -> list[str]:
    """All files but that of the digests, and one that was being written when its process died."""
    names = [item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file()]
    return sorted(n for n in names if n != NAME and not n.startswith(f".{NAME}."))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
