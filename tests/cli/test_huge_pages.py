import os
import subprocess
import sys

import pytest

from condconv_jax.cli.huge_pages import with_huge_pages

ON_REQUEST = "always [madvise] never\n"


def test_starts_over_once():
    environment = with_huge_pages({"HOME": "/h"}, ON_REQUEST)
    assert environment == {"HOME": "/h", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert with_huge_pages(environment, ON_REQUEST) is None


def test_keeps_other_tunables():
    environment = with_huge_pages({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, ON_REQUEST)
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({}, "[always] madvise never"),
        ({}, "always madvise [never]"),
        ({}, ""),
        ({"CONDCONV_HUGE_PAGES": "0"}, ON_REQUEST),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, ON_REQUEST),
    ],
)
def test_stays(environment, setting):
    assert with_huge_pages(environment, setting) is None


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_the_command_passes_its_arguments_and_status_on(wanted):
    environment = {**os.environ, "CONDCONV_HUGE_PAGES": wanted}
    command = [sys.executable, "-m", "condconv_jax", "trian"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown verb 'trian'" in done.stderr
    assert "did you mean 'train'" in done.stderr
