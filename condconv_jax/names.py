"""One way to refuse an unknown name, everywhere: list the choices and the nearest one."""

import difflib
from collections.abc import Iterable


def unknown_name(where: str, what: str, got: object, choices: Iterable[str]) -> ValueError:
    """The error for a name that is none of the choices.

    Args:
      where: the function or option that refuses.
      what: what the name stands for, e.g. "method".
      got: what the caller passed.
      choices: the valid names.

    Returns:
      A ValueError to raise; its message lists the choices and suggests the nearest.
    """
    choices = sorted(choices)
    near = difflib.get_close_matches(str(got), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{where}: unknown {what} {got!r}, choose from {', '.join(choices)}{hint}")
