import asyncio
import sys
import types
import warnings

import pytest

from condconv_jax.runtime import hush_failed_saves


@pytest.fixture
def printed(monkeypatch):
    """The errors that would be printed, after the hook is in place."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))
    with warnings.catch_warnings():
        hush_failed_saves()
        hush_failed_saves()  # a second call does nothing
        yield seen


def test_closed_event_loops_are_not_reported_and_all_else_is(printed):
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as closed:
        loop.call_soon_threadsafe(print)
    others = [RuntimeError("something else"), ValueError("Event loop is closed")]
    for error in (closed.value, *others):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert printed == others
