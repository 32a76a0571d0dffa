import os
import stat
import subprocess
import sys

import jax
import pytest

from condconv_jax.runtime import compile_cache, enable_compile_cache


@pytest.fixture
def unchosen(monkeypatch):
    """Without the suite's own cache."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("CONDCONV_COMPILE_CACHE", raising=False)
    yield monkeypatch
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_folder_of_the_users_cache(unchosen, tmp_path):
    unchosen.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = enable_compile_cache()
    assert folder == tmp_path / "condconv_jax" / f"programs-{compile_cache.machine()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)


def test_off(unchosen, tmp_path):
    unchosen.setenv("XDG_CACHE_HOME", str(tmp_path))
    unchosen.setenv("CONDCONV_COMPILE_CACHE", "0")
    assert enable_compile_cache() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_chosen_stays(unchosen, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert enable_compile_cache() == tmp_path / "own"
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")


def test_a_folder_that_cannot_be_made(unchosen, tmp_path):
    (tmp_path / "file").write_text("in the way")
    unchosen.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert enable_compile_cache() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_another_processor_has_a_folder_of_its_own(tmp_path, monkeypatch):
    words = []
    for name, flags, speed in (("a", "avx2", 1), ("b", "avx2", 2), ("c", "avx2 avx512f", 1)):
        file = tmp_path / name
        # The clock changes while the machine runs; a second core says the same again.
        core = f"model name\t: EPYC\ncpu MHz\t: {speed}\nflags\t: {flags}\n"
        file.write_text(f"{core}\n{core}\n")
        monkeypatch.setattr(compile_cache, "CPU_INFO", file)
        words.append(compile_cache.machine())
    assert words[0] == words[1] != words[2]
    monkeypatch.setattr(compile_cache, "CPU_INFO", tmp_path / "none")
    assert compile_cache.machine() not in words


PROGRAM = """
import jax
from condconv_jax.runtime import enable_compile_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
enable_compile_cache()
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3))
print("/jax/compilation_cache/cache_hits" in found)
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert said == ["False\n", "True\n"]
