"""Compiling the C++: what happens where it cannot be, and that it happens once."""

import logging
import stat

import pytest

from condconv_jax.ops.native import build


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No memory of an earlier answer, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CONDCONV_NATIVE", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    build.library.cache_clear()
    yield
    build.library.cache_clear()


def compiler(tmp_path, script):
    path = tmp_path / "fake-c++"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_without_a_compiler_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert build.library() is None


def test_switched_off(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler(tmp_path, f"touch {tmp_path}/called; exit 1"))
    monkeypatch.setenv("CONDCONV_NATIVE", "0")
    assert build.library() is None
    assert not (tmp_path / "called").exists()


def test_a_compiler_that_fails_is_reported_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", compiler(tmp_path, "echo 'no such flag' >&2; exit 1"))
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
        assert build.library() is None
    assert [r.getMessage() for r in caplog.records] == [
        "condconv_jax: C++ not used, compiling it failed: no such flag\n"
    ]
    assert not list((tmp_path / "condconv_jax").iterdir())


def test_a_user_without_a_home_does_without(monkeypatch, tmp_path, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("CXX", compiler(tmp_path, "exit 0"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(build.Path, "home", no_home)
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "C++ not used" in caplog.text


def test_a_library_that_does_not_load_is_reported(monkeypatch, tmp_path, caplog):
    # The path after -o is the result.
    script = 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "C++ not used" in caplog.text


def test_compiled_once_and_again_when_a_source_changes(monkeypatch, tmp_path):
    script = f'echo x >> {tmp_path}/calls; while [ "$1" != -o ]; do shift; done; echo > "$2"'
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "one.cc").write_text("int one() { return 1; }")
    monkeypatch.setattr(build, "SOURCES", sources)
    named = [build._compile(build._compiler()) for _ in range(2)]
    assert named[0] == named[1]
    assert (tmp_path / "calls").read_text().count("x") == 1
    (sources / "one.cc").write_text("int one() { return 2; }")
    assert build._compile(build._compiler()) != named[0]
    assert (tmp_path / "calls").read_text().count("x") == 2
    # No half-written library is left beside them.
    assert sorted(p.suffix for p in named[0].parent.iterdir()) == [".so", ".so"]
