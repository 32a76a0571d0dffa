"""One wording, everywhere, for a name that is not among the choices."""

import difflib
from collections.abc import Iterable


def unknown_name(where: str, what: str, got: object, choices: Iterable[str]) -> ValueError:
    """Returns the error for an unknown name, with all choices and the nearest of them.

    Args:
      where: the function or option that refuses.
      what: what the name stands for, e.g. "method".
      got: the name as given.
      choices: the names that exist.
    """
    names = sorted(choices)
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(repr(name) for name in names) or "(there are none)"
    return ValueError(f"{where}: unknown {what} {got!r}; choose one of {listed}{hint}")
