"""Waiting for other processes, with an end to it."""

import time

import pytest


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within 30 seconds")
