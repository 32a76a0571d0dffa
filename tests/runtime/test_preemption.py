import signal
import threading

import pytest

from condconv_jax.runtime import StopRequests

# Signals are raised in this thread, not sent to the process: any of JAX's threads may take one that
# is, and this one then runs on for a moment before its handler is called.


HANDLERS = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


@pytest.fixture(autouse=True)
def handlers():
    """Handlers as in a shell's foreground; fails a test after which someone else has the signals.

    A shell starts what is put in the background with SIGINT ignored, the tests themselves too.
    """
    before = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    try:
        yield
        assert {number: signal.getsignal(number) for number in HANDLERS} == HANDLERS
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number):
    with StopRequests() as stop:
        assert not stop.reached()
        signal.raise_signal(number)
        assert stop.reached()
        assert stop.reached()
        assert stop.name == number.name


def test_the_second_interrupts():
    with StopRequests() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGTERM"


def test_an_error_gives_the_signals_back():
    with pytest.raises(KeyError), StopRequests():
        raise KeyError


def test_another_thread_does_not_listen():
    during, asked = [], []

    def work():
        with StopRequests() as stop:
            during.append(signal.getsignal(signal.SIGTERM))
            asked.append(stop.reached())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]
    assert asked == [False]
